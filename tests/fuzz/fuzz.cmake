# Every fuzz_<name>.c here is a fuzzer; its seeds are the files of seeds/<name>/ (keep them tiny) and of
# the folders in FUZZ_MORE_<name>. With -DSAW_FUZZ=ON and clang they are libFuzzer programs; otherwise
# fuzz_main.c runs each over its seeds and some mutations of them, the same ones every time, as a test.
set(FUZZ_MORE_checkpoint ${CMAKE_CURRENT_LIST_DIR}/../golden/formats)

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/fuzz_*.c)
list(REMOVE_ITEM fuzz_sources ${CMAKE_CURRENT_LIST_DIR}/fuzz_main.c)
foreach(source ${fuzz_sources})
    get_filename_component(target ${source} NAME_WE)
    string(REGEX REPLACE "^fuzz_" "" name ${target})
    if(SAW_FUZZ)
        add_executable(${target} ${source})
        target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    else()
        add_executable(${target} ${source} ${CMAKE_CURRENT_LIST_DIR}/fuzz_main.c)
        add_test(NAME ${target} COMMAND ${target} -n 3000 ${CMAKE_CURRENT_LIST_DIR}/seeds/${name}
            ${FUZZ_MORE_${name}})
        set_tests_properties(${target} PROPERTIES TIMEOUT 900)
    endif()
    target_link_libraries(${target} PRIVATE bandsaw saw_flags m)
    target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_LIST_DIR}/..)
endforeach()
