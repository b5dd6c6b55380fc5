/* One thread's state. Initial-exec: the general model goes through __tls_get_addr, which may
 * allocate after a dlopen, and a hook must not. Rust can't choose the model in stable. */
#define THREAD_BYTES 384

/* Hidden, not static: thread.rs finds it by name where it knows the machine. */
__thread unsigned char counterfoil_state[THREAD_BYTES]
    __attribute__((tls_model("initial-exec"), aligned(64), visibility("hidden")));

void *counterfoil_thread(void) { return counterfoil_state; }
unsigned long counterfoil_thread_bytes(void) { return THREAD_BYTES; }

/* Set before the first tag is made: see late.c. */
int counterfoil_tags __attribute__((visibility("hidden")));

/* Set once there is something to record: see unwind.c. */
void (*counterfoil_leave)(void) __attribute__((visibility("hidden")));
