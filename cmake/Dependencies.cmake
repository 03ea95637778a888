# Everything that Troupe takes from elsewhere.  Debian 12's packages are the default; newer
# LibTorch, gRPC and protobuf are found through CMAKE_PREFIX_PATH.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(prometheus-cpp REQUIRED)
# protobuf >= 22 needs its own config files (they bring abseil); Debian's has none.
find_package(Protobuf CONFIG QUIET)
if(NOT Protobuf_FOUND)
  find_package(Protobuf MODULE REQUIRED)
endif()
find_package(gRPC CONFIG REQUIRED)
find_program(TROUPE_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)
include(LibTorch)

# What columns of rows are compressed with.
foreach(name lz4 zstd)
  find_path(TROUPE_${name}_INCLUDE_DIR ${name}.h REQUIRED)
  find_library(TROUPE_${name}_LIBRARY ${name} REQUIRED)
  add_library(troupe_${name} UNKNOWN IMPORTED)
  set_target_properties(troupe_${name} PROPERTIES IMPORTED_LOCATION ${TROUPE_${name}_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${TROUPE_${name}_INCLUDE_DIR})
endforeach()

# libmujoco and its headers, from the mujoco wheel.
file(GLOB TROUPE_MUJOCO_DIR ${TROUPE_VENV}/lib/python3*/site-packages/mujoco)
find_path(MUJOCO_INCLUDE_DIR mujoco/mujoco.h HINTS ${TROUPE_MUJOCO_DIR}/include REQUIRED)
file(GLOB MUJOCO_LIBRARY ${TROUPE_MUJOCO_DIR}/libmujoco.so*)
if(NOT MUJOCO_LIBRARY)
  message(FATAL_ERROR "no libmujoco.so in '${TROUPE_MUJOCO_DIR}': run deploy/setup first")
endif()
add_library(mujoco SHARED IMPORTED)
set_target_properties(mujoco PROPERTIES IMPORTED_LOCATION ${MUJOCO_LIBRARY}
                      INTERFACE_INCLUDE_DIRECTORIES ${MUJOCO_INCLUDE_DIR})

# Gymnasium's model files.
file(GLOB TROUPE_MUJOCO_ASSETS ${TROUPE_VENV}/lib/python3*/site-packages/gymnasium/envs/mujoco/assets)

if(TROUPE_BUILD_TESTS)
  find_package(GTest REQUIRED)
  find_package(benchmark REQUIRED)
endif()
