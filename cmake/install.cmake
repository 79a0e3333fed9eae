# Install target: library, header, pkg-config file, CMake package.
include(CMakePackageConfigHelpers)
set_target_properties(bandsaw PROPERTIES PUBLIC_HEADER ${CMAKE_SOURCE_DIR}/src/bandsaw.h)
install(TARGETS bandsaw EXPORT bandsaw-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT bandsaw-targets NAMESPACE Bandsaw:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/bandsaw)
configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/bandsaw-config.cmake.in
    ${CMAKE_BINARY_DIR}/bandsaw-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/bandsaw)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/bandsaw-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/bandsaw-config.cmake ${CMAKE_BINARY_DIR}/bandsaw-config-version.cmake
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/bandsaw)
configure_file(${CMAKE_SOURCE_DIR}/cmake/bandsaw.pc.in ${CMAKE_BINARY_DIR}/bandsaw.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/bandsaw.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
