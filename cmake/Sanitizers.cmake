# TROUPE_SANITIZE: sanitizers for everything, and what each program needs for them.
if(TROUPE_SANITIZE)
  # gcc 12 takes more for uninitialized than is when it instruments, and warns of every fence, such
  # as Abseil's flags have, that ThreadSanitizer does not model.
  add_compile_options(-fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  if(TROUPE_SANITIZE MATCHES undefined)
    # These make up 40 % of gcc's time, and what they find ends at the address sanitizer, too.
    add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fno-sanitize=null,object-size,vptr>)
  endif()
  add_link_options(-fsanitize=${TROUPE_SANITIZE})

  set(folder ${PROJECT_SOURCE_DIR}/tests/sanitizers)
  add_library(troupe_sanitizer OBJECT ${folder}/options.cc)
  if(TROUPE_SANITIZE MATCHES thread)
    target_sources(troupe_sanitizer PRIVATE ${folder}/tsan_abseil.cc ${folder}/tsan_grpc.cc)
  endif()
  target_include_directories(troupe_sanitizer PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(troupe_sanitizer PUBLIC absl::status absl::synchronization gRPC::grpc++
                        ${CMAKE_DL_LIBS})
endif()

# troupe_reaches_torch(<result> <target>): whether the target is linked with LibTorch.
function(troupe_reaches_torch result target)
  set(${result} FALSE PARENT_SCOPE)
  if(target STREQUAL troupe_torch)
    set(${result} TRUE PARENT_SCOPE)
  elseif(TARGET ${target} AND target MATCHES "^troupe_")
    get_target_property(libraries ${target} INTERFACE_LINK_LIBRARIES)
    foreach(library ${libraries})
      troupe_reaches_torch(found ${library})
      if(found)
        set(${result} TRUE PARENT_SCOPE)
        return()
      endif()
    endforeach()
  endif()
endfunction()
