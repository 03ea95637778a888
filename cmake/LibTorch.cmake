# LibTorch as the target troupe_torch: Debian's, unless CMAKE_PREFIX_PATH holds another, such as that
# of PyPI's torch wheel (python -c 'import torch; print(torch.utils.cmake_prefix_path)').
add_library(troupe_torch INTERFACE)
set(torch_prefixes ${CMAKE_PREFIX_PATH})
list(TRANSFORM torch_prefixes APPEND /../..)  # from share/cmake
find_path(TROUPE_TORCH_DIR include/torch/csrc/api/include/torch/torch.h
          PATHS ${CMAKE_PREFIX_PATH} ${torch_prefixes} NO_DEFAULT_PATH)
if(NOT TROUPE_TORCH_DIR)
  find_package(Torch REQUIRED)
  # As a SYSTEM include, without the flags that its config adds for everybody.
  target_include_directories(troupe_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(troupe_torch INTERFACE ${TORCH_LIBRARIES})
  return()
endif()

# Not by its TorchConfig.cmake: that wants a CUDA compiler where LibTorch can use CUDA, although
# nothing here is compiled for a GPU.
foreach(name torch torch_cpu c10)
  find_library(TROUPE_LIB_${name} ${name} PATHS ${TROUPE_TORCH_DIR}/lib NO_DEFAULT_PATH REQUIRED)
  target_link_libraries(troupe_torch INTERFACE ${TROUPE_LIB_${name}})
endforeach()
# What uses a GPU is in a library that no symbol of ours names; it announces itself when loaded, and
# only then needs CUDA's libraries.
target_link_options(troupe_torch INTERFACE LINKER:--no-as-needed LINKER:--allow-shlib-undefined)

# 2.7 is the first wheel with the C++ ABI that everything else here has.
file(STRINGS ${TROUPE_TORCH_DIR}/share/cmake/Torch/TorchConfig.cmake old_abi
     REGEX "_GLIBCXX_USE_CXX11_ABI=0")
if(old_abi)
  message(FATAL_ERROR "the LibTorch in ${TROUPE_TORCH_DIR} has another C++ ABI "
                      "(_GLIBCXX_USE_CXX11_ABI=0); torch wheels from 2.7 on do not")
endif()

# Its include folder also holds fmt and protobuf, in versions of their own that must not be found
# before those that we link, and Debian's LibTorch may lie behind it: its own folders, and first.
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/torch_include)
foreach(folder ATen c10 caffe2 torch)
  file(CREATE_LINK ${TROUPE_TORCH_DIR}/include/${folder}
       ${PROJECT_BINARY_DIR}/torch_include/${folder} SYMBOLIC)
endforeach()
target_include_directories(troupe_torch SYSTEM BEFORE INTERFACE ${PROJECT_BINARY_DIR}/torch_include
                           ${PROJECT_BINARY_DIR}/torch_include/torch/csrc/api/include)
message(STATUS "LibTorch: ${TROUPE_TORCH_DIR}")
