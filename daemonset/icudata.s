/* ICU's data library without data. libLLVM loads libxml2 for the manifests of Windows programs, libxml2 loads ICU for encodings,
 * and ICU brings 31 MB of them: the agent compiles C and reads none. ICU's manual calls such a library stub data; what asks it
 * for data gets U_FILE_ACCESS_ERROR. The layout is that of common data ("CmnD", unicode/udata.h): a header, and a table of
 * contents with no entries. */
        .section .rodata
        .balign 16
        .globl  icudt72_dat
        .type   icudt72_dat, %object
icudt72_dat:
        .short  32              /* size of the header, padded to 16 */
        .byte   0xda, 0x27      /* magic */
        .short  20, 0           /* size of UDataInfo, reserved */
        .byte   0, 0, 2, 0      /* little endian, ASCII, UChar of 2 bytes, reserved */
        .ascii  "CmnD"
        .byte   1, 0, 0, 0      /* version of the format */
        .byte   0, 0, 0, 0      /* version of the data */
        .balign 16
        .long   0               /* entries */
        .size   icudt72_dat, . - icudt72_dat
        .section .note.GNU-stack, "", %progbits
