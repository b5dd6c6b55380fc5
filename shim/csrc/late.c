/* libaegis asks the processor what it can do as it is loaded (cpuid), which under a hypervisor takes as
 * long as the rest of the library's start. The linker's --wrap sends the question here: it is answered
 * once a daemon has said that this process is observed, before the first tag is made. Until then libaegis has its
 * portable code, and no use for it. */
extern int counterfoil_tags;
int __real_aegis_runtime_get_cpu_features(void);
int __wrap_aegis_runtime_get_cpu_features(void);

int __wrap_aegis_runtime_get_cpu_features(void) {
    return __atomic_load_n(&counterfoil_tags, __ATOMIC_RELAXED) ? __real_aegis_runtime_get_cpu_features() : -1;
}
