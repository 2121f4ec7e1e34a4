# The compiler, its flags, ccache and the linker: the same for every target, so that precompiled headers can be shared.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Programs as libraries: a precompiled header is good only for the very flags it was made with.
set(CMAKE_CXX_COMPILE_OPTIONS_PIE -fPIC)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1")

find_program(PARLEY_CCACHE ccache)
if(PARLEY_CCACHE)
  # Precompiled headers and checkouts in other folders hit the cache too.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND}" -E env "CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime"
      "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}" CCACHE_NOHASHDIR=1 "${PARLEY_CCACHE}")
endif()

find_program(PARLEY_MOLD mold)
if(PARLEY_MOLD)
  add_link_options(-fuse-ld=mold)
endif()
# A forked job shares relocated pages with its zygote only when they were relocated before the fork.
add_link_options(-Wl,-z,now -Wl,--as-needed)

add_compile_options(-Wall -Wextra -Werror -Wno-missing-field-initializers -fno-strict-aliasing -fpch-preprocess)
if(PARLEY_SANITIZE)
  add_compile_options(-fsanitize=${PARLEY_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${PARLEY_SANITIZE})
endif()
# One set of definitions everywhere: a definition that differs makes the shared precompiled header unusable.
add_compile_definitions(SPDLOG_SHARED_LIB SPDLOG_COMPILED_LIB SPDLOG_FMT_EXTERNAL FMT_SHARED)
