# parley_proto_package, parley_library, parley_binary, parley_test: how targets are declared. Sources are listed by name.

set(PARLEY_PROTO_ROOT "${CMAKE_SOURCE_DIR}/protos")
set(PARLEY_PROTO_OUT "${CMAKE_BINARY_DIR}/protos/gen")
file(MAKE_DIRECTORY "${PARLEY_PROTO_OUT}")

# The headers that cost most to read, compiled once: gRPC, protobuf, abseil.
add_library(parley_pch_rpc OBJECT "${CMAKE_CURRENT_LIST_DIR}/pch_rpc.cc")
target_precompile_headers(parley_pch_rpc PRIVATE "${CMAKE_CURRENT_LIST_DIR}/pch_rpc.h")
target_link_libraries(parley_pch_rpc PRIVATE gRPC::grpc++ protobuf::libprotobuf absl::statusor)

# parley_proto_package(NAME VERSION FILES a b [GRPC a] [DEPS other packages]) → parley::proto_NAME
function(parley_proto_package name version)
  cmake_parse_arguments(P "" "" "FILES;GRPC;DEPS" ${ARGN})
  set(sources)
  foreach(file IN LISTS P_FILES)
    set(rel "parley/${name}/${version}/${file}")
    set(outputs "${PARLEY_PROTO_OUT}/${rel}.pb.cc" "${PARLEY_PROTO_OUT}/${rel}.pb.h")
    set(args --cpp_out=${PARLEY_PROTO_OUT})
    if(file IN_LIST P_GRPC)
      list(APPEND outputs "${PARLEY_PROTO_OUT}/${rel}.grpc.pb.cc" "${PARLEY_PROTO_OUT}/${rel}.grpc.pb.h")
      list(APPEND args --grpc_out=${PARLEY_PROTO_OUT} --plugin=protoc-gen-grpc=${PARLEY_GRPC_CPP_PLUGIN})
    endif()
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND ${PARLEY_PROTOC} -I ${PARLEY_PROTO_ROOT} ${args} ${PARLEY_PROTO_ROOT}/${rel}.proto
      DEPENDS ${PARLEY_PROTO_ROOT}/${rel}.proto
      VERBATIM)
    list(APPEND sources ${outputs})
  endforeach()
  add_library(parley_proto_${name} OBJECT ${sources})
  target_include_directories(parley_proto_${name} SYSTEM PUBLIC "${PARLEY_PROTO_OUT}")
  target_link_libraries(parley_proto_${name} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  target_precompile_headers(parley_proto_${name} REUSE_FROM parley_pch_rpc)
  target_compile_options(parley_proto_${name} PRIVATE -w -g0)
  foreach(dep IN LISTS P_DEPS)
    target_link_libraries(parley_proto_${name} PUBLIC parley_proto_${dep})
    add_dependencies(parley_proto_${name} parley_proto_${dep})
  endforeach()
  # Object libraries do not pass their objects on by themselves: a thin static library does.
  add_library(parley_protolib_${name} STATIC $<TARGET_OBJECTS:parley_proto_${name}>)
  target_include_directories(parley_protolib_${name} SYSTEM PUBLIC "$<BUILD_INTERFACE:${PARLEY_PROTO_OUT}>")
  target_link_libraries(parley_protolib_${name} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  foreach(dep IN LISTS P_DEPS)
    target_link_libraries(parley_protolib_${name} PUBLIC parley_protolib_${dep})
  endforeach()
  set_target_properties(parley_protolib_${name} PROPERTIES LINKER_LANGUAGE CXX)
  add_dependencies(parley_protolib_${name} parley_proto_${name})
  add_library(parley::proto_${name} ALIAS parley_protolib_${name})
endfunction()

# parley_library(NAME SOURCES … [DEPS …] [RPC]) → target parley_NAME, alias parley::NAME, headers as "NAME/x.h".
# RPC: its sources include gRPC or protobuf headers, so it shares the precompiled ones.
function(parley_library name)
  cmake_parse_arguments(L "RPC" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(parley_${name} STATIC ${L_SOURCES})
  add_library(parley::${name} ALIAS parley_${name})
  target_include_directories(
    parley_${name} PUBLIC "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/libs>" "$<INSTALL_INTERFACE:include/parley>")
  target_link_libraries(parley_${name} PUBLIC ${L_DEPS} PRIVATE ${L_PRIVATE_DEPS})
  if(L_RPC)
    target_precompile_headers(parley_${name} REUSE_FROM parley_pch_rpc)
  endif()
endfunction()

# For programs that use gRPC: ThreadSanitizer is told of the order it keeps. In no other build.
if(PARLEY_SANITIZE MATCHES "thread")
  add_library(parley_grpc_order OBJECT "${CMAKE_SOURCE_DIR}/libs/testing/grpc_order.cc")
  target_link_libraries(parley_grpc_order PUBLIC ${CMAKE_DL_LIBS})
else()
  add_library(parley_grpc_order INTERFACE)
endif()

# parley_service(FOLDER SOURCES … DEPS …) → library parley::service_FOLDER and binary parley-<folder-with-dashes>.
function(parley_service folder)
  cmake_parse_arguments(S "" "" "SOURCES;DEPS" ${ARGN})
  add_library(parley_service_${folder} STATIC ${S_SOURCES})
  add_library(parley::service_${folder} ALIAS parley_service_${folder})
  target_include_directories(parley_service_${folder} PUBLIC "${CMAKE_SOURCE_DIR}/services" "${CMAKE_SOURCE_DIR}/libs")
  target_link_libraries(parley_service_${folder} PUBLIC parley::service ${S_DEPS})
  target_precompile_headers(parley_service_${folder} REUSE_FROM parley_pch_rpc)
  string(REPLACE "_" "-" dashed "${folder}")
  add_executable(parley-${dashed} main.cc)
  target_link_libraries(parley-${dashed} PRIVATE parley::service_${folder} parley_grpc_order)
  target_precompile_headers(parley-${dashed} REUSE_FROM parley_pch_rpc)
endfunction()

# parley_binary(NAME SOURCES … DEPS … [RPC])
function(parley_binary name)
  cmake_parse_arguments(B "RPC" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${B_SOURCES})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/libs")
  target_link_libraries(${name} PRIVATE ${B_DEPS})
  if(B_RPC)
    target_precompile_headers(${name} REUSE_FROM parley_pch_rpc)
  endif()
endfunction()

# What the sanitizer builds build and run: every test that needs neither network nor clock, and those that carry media
# in this process (label media).
if(PARLEY_BUILD_TESTS)
  add_custom_target(unit_tests)
  add_custom_target(media_tests)
endif()

# parley_live(TEST …): tests that hold calls in real time. Mostly they wait, so others run beside them, but one of them is
# enough for a machine. They begin first: one at a time they take longest.
function(parley_live)
  set_tests_properties(${ARGN} PROPERTIES RESOURCE_LOCK live COST 1000)
endfunction()

# parley_test(NAME SOURCES … DEPS … LABELS unit fast [TIMEOUT s] [RPC] [SHARDS n] [LIVE | SERIAL]): one GoogleTest program =
# one ctest test, or n of them, NAME_1 to NAME_n, that share its cases. SERIAL: nothing runs beside it.
# Labels: tier (fast, or one of chaos, clients, browser, soak, images, tsan) and kind (unit, component, e2e; media).
function(parley_test name)
  cmake_parse_arguments(T "RPC;SERIAL;LIVE" "TIMEOUT;SHARDS" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_executable(${name} ${T_SOURCES})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/libs" "${CMAKE_SOURCE_DIR}/services")
  target_link_libraries(${name} PRIVATE ${T_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE)
  if(T_RPC)
    target_precompile_headers(${name} REUSE_FROM parley_pch_rpc)
    target_link_libraries(${name} PRIVATE parley_grpc_order)
  endif()
  if(NOT T_SHARDS)
    set(T_SHARDS 1)
  endif()
  foreach(shard RANGE 1 ${T_SHARDS})
    set(test ${name})
    set(environment "PARLEY_BIN_DIR=${CMAKE_BINARY_DIR}/bin;PARLEY_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
    if(T_SHARDS GREATER 1)
      math(EXPR index "${shard} - 1")
      set(test ${name}_${shard})
      list(APPEND environment "GTEST_TOTAL_SHARDS=${T_SHARDS}" "GTEST_SHARD_INDEX=${index}")
    endif()
    add_test(NAME ${test} COMMAND ${name})
    set_tests_properties(${test} PROPERTIES
      LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT} ENVIRONMENT "${environment}")
    if(T_LIVE)
      parley_live(${test})
    elseif(T_SERIAL)
      set_tests_properties(${test} PROPERTIES RUN_SERIAL TRUE)
    endif()
  endforeach()
  foreach(kind unit media)
    if(kind IN_LIST T_LABELS)
      add_dependencies(${kind}_tests ${name})
    endif()
  endforeach()
endfunction()
