# What `cmake --install` lays down: the command, the libraries with their headers and CMake package, the models in the
# box; and the archive that CPack makes of it. Nothing of another project is bundled: oneDNN and the like stay dynamic.

include(CMakePackageConfigHelpers)
set(VOLLEY_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/volley)
set(VOLLEY_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR}/volley)
set(VOLLEY_INSTALL_MODELSDIR ${CMAKE_INSTALL_DATADIR}/volley/models)

set(libraries volley_options volley_base volley_io volley_backend volley_backend_cpu volley_nn volley_decode volley_core)
set(header_folders core)
if(TARGET volley_backend_cuda)
  list(APPEND libraries volley_backend_cuda)
endif()
foreach(modality text image speech)
  if(TARGET volley_${modality})
    list(APPEND libraries volley_${modality})
    list(APPEND header_folders ${modality})
  endif()
endforeach()
set_target_properties(volley_options PROPERTIES EXPORT_NAME options)

install(TARGETS ${libraries} EXPORT volley-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(EXPORT volley-targets NAMESPACE volley:: DESTINATION ${VOLLEY_INSTALL_CMAKEDIR} COMPONENT development)
# An implementation of the backend keeps its headers to itself.
install(DIRECTORY ${header_folders} DESTINATION ${VOLLEY_INSTALL_INCLUDEDIR} COMPONENT development
  FILES_MATCHING PATTERN "*.h" PATTERN "core/backend/cpu" EXCLUDE PATTERN "core/backend/cuda" EXCLUDE)

set(VOLLEY_WITH_TEXT OFF)
if(TARGET volley_text)
  set(VOLLEY_WITH_TEXT ON)
endif()
set(VOLLEY_WITH_IMAGE OFF)
if(TARGET volley_image)
  set(VOLLEY_WITH_IMAGE ON)
endif()
configure_package_config_file(cmake/volley-config.cmake.in ${PROJECT_BINARY_DIR}/volley-config.cmake
  INSTALL_DESTINATION ${VOLLEY_INSTALL_CMAKEDIR}
  PATH_VARS VOLLEY_INSTALL_INCLUDEDIR VOLLEY_INSTALL_MODELSDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/volley-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/volley-config.cmake
  ${PROJECT_BINARY_DIR}/volley-config-version.cmake
  cmake/FindOneDNN.cmake
  cmake/FindPCRE2.cmake
  cmake/FindTurboJPEG.cmake
  cmake/FindUtf8proc.cmake
  cmake/FindWebP.cmake
  DESTINATION ${VOLLEY_INSTALL_CMAKEDIR} COMPONENT development)

if(TARGET volley)
  install(TARGETS volley RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT command)
  if(NOT CMAKE_CROSSCOMPILING)
    set(shell_files ${PROJECT_BINARY_DIR}/shell)
    install(DIRECTORY ${shell_files}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR} COMPONENT command)
    install(DIRECTORY ${shell_files}/bash/ DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT command)
    install(DIRECTORY ${shell_files}/zsh/ DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT command)
    install(DIRECTORY ${shell_files}/fish/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT command)
  endif()
endif()
if(EXISTS ${PROJECT_SOURCE_DIR}/assets/models)
  install(DIRECTORY assets/models/ DESTINATION ${VOLLEY_INSTALL_MODELSDIR} COMPONENT command)
endif()
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT command)
install(DIRECTORY docs/licences DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT command)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_VENDOR "the volley authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY ${PROJECT_DESCRIPTION})
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_FILE_NAME volley-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)
include(CPack)
