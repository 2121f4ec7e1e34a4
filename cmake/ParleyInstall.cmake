# `cmake --install build/release --component sdk --prefix DIR`: what a program built on the SDK needs, found with
# find_package(Parley). The libraries are static: a program carries its agent server with it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(PARLEY_PACKAGE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/Parley")
# What users include, and what that includes.
set(PARLEY_PUBLIC_HEADERS agent/agent.h agent/run_agent.h agent/task.h agent/tool.h base/mutex.h base/status.h log/log.h session/commands.h
  session/types.h)

# Every target of ours that `root` links, itself included.
function(parley_closure root out)
  set(found)
  set(todo "${root}")
  while(todo)
    list(POP_FRONT todo name)
    get_target_property(real "${name}" ALIASED_TARGET)
    if(real)
      set(name "${real}")
    endif()
    if(name IN_LIST found)
      continue()
    endif()
    list(APPEND found "${name}")
    get_target_property(links "${name}" INTERFACE_LINK_LIBRARIES)
    string(REGEX MATCHALL "parley(::|_)[a-z0-9_]+" ours "${links}")
    list(APPEND todo ${ours})
  endwhile()
  set(${out} "${found}" PARENT_SCOPE)
endfunction()

parley_closure(parley::agent targets)
foreach(target IN LISTS targets)
  string(REGEX REPLACE "^parley_(protolib_)?" "" short "${target}")
  if(target MATCHES "protolib_")
    set(short "proto_${short}")
  endif()
  set_target_properties(${target} PROPERTIES EXPORT_NAME "${short}")
endforeach()
install(TARGETS ${targets} EXPORT Parley COMPONENT sdk ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}/parley" COMPONENT sdk)
install(EXPORT Parley NAMESPACE parley:: FILE ParleyTargets.cmake DESTINATION "${PARLEY_PACKAGE_DIR}" COMPONENT sdk)
foreach(header IN LISTS PARLEY_PUBLIC_HEADERS)
  get_filename_component(folder "${header}" DIRECTORY)
  install(FILES "${CMAKE_SOURCE_DIR}/libs/${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/parley/${folder}" COMPONENT sdk)
endforeach()
configure_package_config_file(
  "${CMAKE_CURRENT_LIST_DIR}/ParleyConfig.cmake.in" "${CMAKE_BINARY_DIR}/ParleyConfig.cmake"
  INSTALL_DESTINATION "${PARLEY_PACKAGE_DIR}")
write_basic_package_version_file("${CMAKE_BINARY_DIR}/ParleyConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(
  FILES "${CMAKE_BINARY_DIR}/ParleyConfig.cmake" "${CMAKE_BINARY_DIR}/ParleyConfigVersion.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/ParleyDependencies.cmake"
  DESTINATION "${PARLEY_PACKAGE_DIR}" COMPONENT sdk)
