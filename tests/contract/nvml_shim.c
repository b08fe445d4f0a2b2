/* A stand-in for libnvidia-ml.so.1 with the calls that the agent makes, and switches (shim_*) by
 * which a test plays the boards. Two boards unless told otherwise. With a plant (shim_set_plant) each look and each
 * write first asks the plant to set the board's readings, and tells it what was written. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define BOARDS 4
#define INSTANCES 7

typedef struct {
    unsigned limit, low, high, fallback, enforced_cap, power, instant, average, sm_clock;
    unsigned clock_min, clock_max, lock_low, lock_high; /* a lock of 0: free */
    unsigned long long energy, reasons;
    int lost, denied, no_energy, no_instant, no_instant_value, no_average_value, no_temperature;
    int fails_with, field_fails_with, unopened;
    int no_clocks, no_clock_reading, sluggish, no_event_reasons, no_throttle_reasons;
    int mig, instances;
    char name[64];
    int writes;
} board_t;

typedef void (*look_t)(int board);
typedef void (*wrote_t)(int board, int is_clock, int value);

static board_t boards[BOARDS];
static int instance_of[BOARDS][INSTANCES]; /* only their addresses matter */
static int order[BOARDS];
static unsigned present;
static int started, starts, calls;
static look_t plant_look;
static wrote_t plant_wrote;
static const char *uuids[BOARDS] = {
    "GPU-11111111-0000-0000-0000-000000000000", "GPU-22222222-0000-0000-0000-000000000000",
    "GPU-33333333-0000-0000-0000-000000000000", "GPU-44444444-0000-0000-0000-000000000000"};

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    int32_t type;
    int32_t result;
    union { double d; uint32_t u; uint64_t ull; } value;
} field_t;

/* Also when it is loaded: in a process of its own nobody else resets it. */
__attribute__((constructor)) void shim_reset(void) {
    plant_look = 0;
    plant_wrote = 0;
    starts = calls = 0;
    present = 2;
    for (int i = 0; i < BOARDS; i++) {
        memset(&boards[i], 0, sizeof boards[i]);
        boards[i].limit = boards[i].high = boards[i].fallback = 700000;
        boards[i].low = 200000;
        boards[i].enforced_cap = 10000000;
        boards[i].power = 300000;
        boards[i].instant = 310000;
        boards[i].average = 305000;
        boards[i].energy = 5000000;
        boards[i].sm_clock = 1410;
        boards[i].clock_min = 345;
        boards[i].clock_max = 1980;
        strcpy(boards[i].name, "NVIDIA Shim 700W");
        order[i] = i;
    }
}
#define SWITCH(name) void shim_##name(int i, int value) { boards[i].name = value; }
SWITCH(lost) SWITCH(denied) SWITCH(no_energy) SWITCH(no_instant) SWITCH(no_instant_value)
SWITCH(no_average_value) SWITCH(no_temperature) SWITCH(enforced_cap) SWITCH(power) SWITCH(instant)
SWITCH(limit) SWITCH(fails_with) SWITCH(field_fails_with) SWITCH(no_clocks) SWITCH(unopened)
SWITCH(no_clock_reading) SWITCH(sluggish) SWITCH(sm_clock) SWITCH(low) SWITCH(high)
SWITCH(clock_min) SWITCH(clock_max)
SWITCH(fallback) SWITCH(no_event_reasons) SWITCH(no_throttle_reasons) SWITCH(mig) SWITCH(instances)
void shim_energy(int i, unsigned long long value) { boards[i].energy = value; }
void shim_reasons(int i, unsigned long long value) { boards[i].reasons = value; }
void shim_name(int i, const char *name) { snprintf(boards[i].name, sizeof boards[i].name, "%s", name); }
void shim_set_plant(look_t look, wrote_t wrote) { plant_look = look; plant_wrote = wrote; }
void shim_count(unsigned count) { present = count; }
void shim_swap_indices(void) { order[0] = 1; order[1] = 0; }
unsigned shim_get_limit(int i) { return boards[i].limit; }
unsigned shim_get_lock_low(int i) { return boards[i].lock_low; }
unsigned shim_get_lock_high(int i) { return boards[i].lock_high; }
int shim_get_writes(void) { int n = 0; for (int i = 0; i < BOARDS; i++) n += boards[i].writes; return n; }
int shim_get_starts(void) { return starts; }
int shim_get_calls(void) { return calls; }
void shim_drop_driver(void) { started = 0; }

static int index_of(void *device) {
    for (int i = 0; i < BOARDS; i++)
        if (device == &boards[i]) return i;
    return -1; /* a MIG instance */
}
static int check(void *device) {
    calls++;
    if (!started) return 1;
    int i = index_of(device);
    if (i < 0) return 3; /* power, clocks and limits are the parent's */
    if (boards[i].lost) return 15;
    if (plant_look) plant_look(i);
    return boards[i].fails_with;
}
#define BOARD board_t *b = device; int bad = check(device); if (bad) return bad; (void)b
#define WROTE(is_clock, value) b->writes++; \
    if (plant_wrote) plant_wrote(index_of(device), is_clock, value)

int nvmlInitWithFlags(unsigned flags) { (void)flags; started = 1; starts++; return 0; }
int nvmlShutdown(void) { started = 0; return 0; }
const char *nvmlErrorString(int code) { static char t[32]; sprintf(t, "code %d", code); return t; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = present; return started ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    board_t *b = &boards[order[index]];
    if (b->unopened) return b->unopened;
    *device = b;
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (!started) return 1;
    for (unsigned i = 0; i < present; i++)
        if (!strcmp(uuid, uuids[i])) { *device = &boards[i]; return 0; }
    int board, place;
    if (sscanf(uuid, "MIG-%d-%d", &board, &place) == 2 && boards[board].mig
        && place < boards[board].instances) {
        *device = &instance_of[board][place];
        return 0;
    }
    return 6;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    int i = index_of(device);
    if (i >= 0) { snprintf(uuid, length, "%s", uuids[i]); return 0; }
    long place = (int *)device - &instance_of[0][0];
    snprintf(uuid, length, "MIG-%ld-%ld", place / INSTANCES, place % INSTANCES);
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    BOARD;
    snprintf(name, length, "%s", b->name);
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    BOARD; if (b->mig < 0) return 3; *current = *pending = b->mig; return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    BOARD; *count = INSTANCES; return 0;
}
/* Every second place is empty, as after an instance in the middle was destroyed. */
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    BOARD;
    if (index % 2 || (int)index / 2 >= b->instances) return 6;
    *instance = &instance_of[index_of(device)][index / 2];
    return 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *instance, void **device) {
    if (index_of(instance) >= 0) return 2;
    *device = &boards[((int *)instance - &instance_of[0][0]) / INSTANCES];
    return 0;
}
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high) {
    BOARD; *low = b->low; *high = b->high; return 0;
}
int nvmlDeviceGetPowerManagementDefaultLimit(void *device, unsigned *limit) {
    BOARD; *limit = b->fallback; return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *limit) {
    BOARD; *limit = b->limit < b->enforced_cap ? b->limit : b->enforced_cap; return 0;
}
int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit) {
    BOARD;
    if (b->denied) return 4;
    if (limit < b->low || limit > b->high) return 2;
    b->limit = limit;
    WROTE(0, limit);
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *power) {
    BOARD; *power = b->power; return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    BOARD; if (b->no_energy) return 3; *energy = b->energy; return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    BOARD;
    (void)sensor;
    if (b->no_temperature) return b->no_temperature == 1 ? 3 : b->no_temperature;
    *celsius = 61;
    return 0;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
    BOARD; if (b->no_event_reasons) return 13; *reasons = b->reasons; return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
    BOARD; if (b->no_throttle_reasons) return 3; *reasons = b->reasons; return 0;
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) {
    BOARD;
    if (b->no_clock_reading) return 3;
    unsigned now = b->sm_clock;
    if (b->lock_high && b->lock_high < now && !b->sluggish) now = b->lock_high;
    *mhz = kind == 1 ? now : 0;
    return 0;
}
int nvmlDeviceGetMaxClockInfo(void *device, int kind, unsigned *mhz) {
    BOARD; *mhz = kind == 1 ? b->clock_max : 2619; return 0;
}
/* As the library: first asked with no room, it tells how many there are. */
static int fill(unsigned *count, unsigned *out, unsigned first, unsigned step, unsigned n) {
    if (*count < n) { *count = n; return 7; }
    for (unsigned i = 0; i < n; i++) out[i] = first - i * step;
    *count = n;
    return 0;
}
int nvmlDeviceGetSupportedMemoryClocks(void *device, unsigned *count, unsigned *out) {
    BOARD; if (b->no_clocks) return 3; return fill(count, out, 2619, 1020, 2);
}
int nvmlDeviceGetSupportedGraphicsClocks(void *device, unsigned memory, unsigned *count,
                                         unsigned *out) {
    BOARD; if (memory != 2619) return 2;
    return fill(count, out, b->clock_max, 15, (b->clock_max - b->clock_min) / 15 + 1);
}
int nvmlDeviceSetGpuLockedClocks(void *device, unsigned low, unsigned high) {
    BOARD;
    if (b->denied) return 4;
    if (low > high || low < b->clock_min || high > b->clock_max) return 2;
    b->lock_low = low;
    b->lock_high = high;
    WROTE(1, high);
    return 0;
}
int nvmlDeviceResetGpuLockedClocks(void *device) {
    BOARD;
    if (b->denied) return 4;
    b->lock_low = b->lock_high = 0;
    WROTE(1, 0);
    return 0;
}
int nvmlDeviceGetFieldValues(void *device, int count, field_t *fields) {
    BOARD;
    if (b->no_instant) return 3;
    for (int i = 0; i < count; i++) {
        int instant = fields[i].field == 186;
        int missing = instant ? b->no_instant_value : b->no_average_value;
        fields[i].type = 1;
        fields[i].result = missing ? 3 : b->field_fails_with;
        fields[i].value.u = instant ? b->instant : b->average;
    }
    return 0;
}
