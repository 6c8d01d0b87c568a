# libedit, the BSD line editor: edit::edit.
include(FindPackageHandleStandardArgs)
find_path(Edit_INCLUDE_DIR histedit.h)
find_library(Edit_LIBRARY edit)
find_package_handle_standard_args(Edit REQUIRED_VARS Edit_LIBRARY Edit_INCLUDE_DIR)
mark_as_advanced(Edit_INCLUDE_DIR Edit_LIBRARY)

if(Edit_FOUND AND NOT TARGET edit::edit)
  add_library(edit::edit UNKNOWN IMPORTED)
  set_target_properties(edit::edit PROPERTIES
    IMPORTED_LOCATION ${Edit_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${Edit_INCLUDE_DIR})
endif()
