/* Forced unwinding (pthread_exit, pthread_cancel; a thread may be in any of our instructions then, in a recording
 * too) and other languages' exceptions pass our frames as they pass C's. Rust's personality routine would end the
 * program: it knows nothing of an instruction that is no call, and takes an exception that it didn't throw for a
 * fault. It would also read the unwinder's state through our own copy of libgcc's, and the unwinder may be another one.
 * The linker's --wrap puts this before it; our own panics are still its. */
#include <stddef.h>
#include <string.h>
#include <unwind.h>

/* This thread leaves all calls that it is in. */
extern void (*counterfoil_leave)(void);

_Unwind_Reason_Code __real_rust_eh_personality(int, _Unwind_Action, _Unwind_Exception_Class, struct _Unwind_Exception *, struct _Unwind_Context *);
_Unwind_Reason_Code __wrap_rust_eh_personality(int, _Unwind_Action, _Unwind_Exception_Class, struct _Unwind_Exception *, struct _Unwind_Context *);

_Unwind_Reason_Code __wrap_rust_eh_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class, struct _Unwind_Exception *exception, struct _Unwind_Context *context) {
    /* library/panic_unwind/src/gcc.rs, rust_exception_class: these bytes as they stand. */
    int ours = memcmp(&class, "MOZ\0RUST", sizeof class) == 0;
    int forced = actions & _UA_FORCE_UNWIND;
    if (ours && !forced)
        return __real_rust_eh_personality(version, actions, class, exception, context);
    if (forced && counterfoil_leave != NULL)
        counterfoil_leave();
    return _URC_CONTINUE_UNWIND;
}
