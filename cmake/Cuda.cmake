# TROUPE_CUDA: whether the fused engine for GPUs is built.  Wants nvcc 12 or newer, no GPU, and
# nothing of CUDA at run time but the driver.  Sets TROUPE_HAS_CUDA.
set(TROUPE_CUDA AUTO CACHE STRING "Build the fused engine for GPUs: AUTO (if there is an nvcc), ON or OFF")
set(TROUPE_HAS_CUDA FALSE)
if(TROUPE_CUDA STREQUAL OFF)
  message(STATUS "Fused engine for GPUs: left out, TROUPE_CUDA is OFF")
  return()
endif()
find_program(TROUPE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME PATHS /usr/local/cuda/bin
             PATH_SUFFIXES bin)
set(nvcc_version 0)
if(TROUPE_NVCC)
  execute_process(COMMAND ${TROUPE_NVCC} --version OUTPUT_VARIABLE nvcc_says)
  string(REGEX MATCH "release ([0-9.]+)" matched "${nvcc_says}")
  set(nvcc_version ${CMAKE_MATCH_1})
endif()
if(nvcc_version VERSION_LESS 12)
  if(TROUPE_CUDA STREQUAL ON)
    message(FATAL_ERROR "TROUPE_CUDA is ON, and there is no nvcc 12 or newer (found: ${TROUPE_NVCC} "
                        "${nvcc_version})")
  endif()
  message(STATUS "Fused engine for GPUs: left out, there is no nvcc 12 or newer")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${TROUPE_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 80-real 90 CACHE STRING "As CMake's; 8.0 is the least")
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_STANDARD 17)  # CMake 3.25 knows no newer one of nvcc 13
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(TROUPE_HAS_CUDA TRUE)
message(STATUS "Fused engine for GPUs: nvcc ${nvcc_version}")
