# Flags, and one line a library, a program, a test.
add_library(troupe_flags INTERFACE)
target_compile_options(troupe_flags INTERFACE -Wall -Wextra -Wno-unused-parameter
                       -Wno-missing-field-initializers
                       $<$<BOOL:${TROUPE_WERROR}>:-Werror>
                       $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)

# Every program of the product and every unit or integration test that is not linked with LibTorch.
# Tests that are, or that start a program that is, carry the label `torch` as well.
add_custom_target(troupe_without_torch)

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

# An executable; sets reaches_torch for the caller.
function(troupe_executable name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} troupe_flags)
  if(TROUPE_SANITIZE)
    target_link_libraries(${name} PRIVATE troupe_sanitizer)
  endif()
  set(reaches_torch FALSE)
  foreach(dependency ${ARG_DEPS})
    troupe_reaches_torch(found ${dependency})
    if(found)
      set(reaches_torch TRUE)
    endif()
  endforeach()
  set(reaches_torch ${reaches_torch} PARENT_SCOPE)
endfunction()

# troupe_program(<name> <sources>... DEPS <targets>...): build/<preset>/bin/<name>
function(troupe_program name)
  troupe_executable(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  if(NOT reaches_torch AND NOT CMAKE_CURRENT_SOURCE_DIR MATCHES "/tests/(bench|chaos)")
    add_dependencies(troupe_without_torch ${name})
  endif()
endfunction()

# troupe_test(<name> LABEL unit|integration|e2e <sources>... DEPS <targets>...)
function(troupe_test name)
  cmake_parse_arguments(ARG "" "LABEL" "DEPS" ${ARGN})
  troupe_executable(${name} ${ARG_UNPARSED_ARGUMENTS} DEPS ${ARG_DEPS} GTest::gmock
                    GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(reaches_torch)
    list(APPEND ARG_LABEL torch)
  elseif(ARG_LABEL MATCHES "unit|integration")
    add_dependencies(troupe_without_torch ${name})
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT 600
                       ENVIRONMENT "OPENBLAS_NUM_THREADS=1;OMP_NUM_THREADS=1")
endfunction()
