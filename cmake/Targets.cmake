# Flags, and one line a library, a program, a test.
add_library(troupe_flags INTERFACE)
target_compile_options(troupe_flags INTERFACE -Wall -Wextra -Wno-unused-parameter
                       -Wno-missing-field-initializers
                       $<$<BOOL:${TROUPE_WERROR}>:-Werror>
                       $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)
if(TROUPE_SANITIZE)
  add_compile_options(-fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${TROUPE_SANITIZE})
endif()

# troupe_library(<name> <sources>... DEPS <targets>...)
function(troupe_library name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE troupe_flags)
endfunction()

# troupe_torch_library: the same for sources that include LibTorch, with one precompiled header,
# which the first such library makes for all of them.
function(troupe_torch_library name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  troupe_library(${name} ${ARG_UNPARSED_ARGUMENTS} DEPS ${ARG_DEPS} troupe_torch)
  get_property(owner GLOBAL PROPERTY TROUPE_TORCH_HEADER_OWNER)
  if(owner)
    target_precompile_headers(${name} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${name} PRIVATE <torch/torch.h>)
    set_property(GLOBAL PROPERTY TROUPE_TORCH_HEADER_OWNER ${name})
  endif()
endfunction()

# troupe_program(<name> <sources>... DEPS <targets>...): build/<preset>/bin/<name>
function(troupe_program name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} troupe_flags)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
endfunction()

# troupe_test(<name> LABEL unit|integration|e2e <sources>... DEPS <targets>...)
function(troupe_test name)
  cmake_parse_arguments(ARG "" "LABEL" "DEPS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main troupe_flags)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 600
                       ENVIRONMENT "OPENBLAS_NUM_THREADS=1;OMP_NUM_THREADS=1")
endfunction()
