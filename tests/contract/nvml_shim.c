/* A stand-in for libnvidia-ml.so.1 with the few calls that the agent makes, and switches
 * (shim_*) by which a test plays the board. Two boards; "busy" is board 0. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    unsigned limit, low, high, fallback, enforced_cap, power, instant;
    unsigned long long energy;
    int lost, denied, no_energy, no_instant, no_instant_value, no_temperature, fails_with;
} board_t;

static board_t boards[2];
static int order[2] = {0, 1};
static int started;
static const char *uuids[2] = {"GPU-11111111-0000-0000-0000-000000000000",
                               "GPU-22222222-0000-0000-0000-000000000000"};

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    int32_t type;
    int32_t result;
    union { double d; uint32_t u; uint64_t ull; } value;
} field_t;

void shim_reset(void) {
    for (int i = 0; i < 2; i++) {
        memset(&boards[i], 0, sizeof boards[i]);
        boards[i].limit = boards[i].high = boards[i].fallback = 700000;
        boards[i].low = 200000;
        boards[i].enforced_cap = 10000000;
        boards[i].power = 300000;
        boards[i].instant = 310000;
        boards[i].energy = 5000000;
        order[i] = i;
    }
}
#define SWITCH(name) void shim_##name(int i, int value) { boards[i].name = value; }
SWITCH(lost) SWITCH(denied) SWITCH(no_energy) SWITCH(no_instant) SWITCH(no_instant_value)
SWITCH(no_temperature) SWITCH(enforced_cap) SWITCH(power) SWITCH(limit) SWITCH(fails_with)
void shim_swap_indices(void) { order[0] = 1; order[1] = 0; }
unsigned shim_get_limit(int i) { return boards[i].limit; }
void shim_drop_driver(void) { started = 0; }

static int check(void *device) {
    if (!started) return 1;
    board_t *b = device;
    if (b->lost) return 15;
    return b->fails_with;
}
#define BOARD board_t *b = device; int bad = check(device); if (bad) return bad; (void)b

int nvmlInitWithFlags(unsigned flags) { (void)flags; started = 1; return 0; }
int nvmlShutdown(void) { started = 0; return 0; }
const char *nvmlErrorString(int code) { static char t[32]; sprintf(t, "code %d", code); return t; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return started ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &boards[order[index]];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    if (!started) return 1;
    for (int i = 0; i < 2; i++)
        if (!strcmp(uuid, uuids[i])) { *device = &boards[i]; return 0; }
    return 6;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    snprintf(uuid, length, "%s", uuids[(board_t *)device - boards]);
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    BOARD;
    snprintf(name, length, "NVIDIA Shim 700W");
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
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *power) {
    BOARD; *power = b->power; return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy) {
    BOARD; if (b->no_energy) return 3; *energy = b->energy; return 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    BOARD; (void)sensor; if (b->no_temperature) return 3; *celsius = 61; return 0;
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) {
    BOARD; *mhz = kind == 1 ? 1410 : 0; return 0;
}
int nvmlDeviceGetFieldValues(void *device, int count, field_t *fields) {
    BOARD;
    if (b->no_instant) return 3;
    for (int i = 0; i < count; i++) {
        fields[i].result = b->no_instant_value ? 3 : 0;
        fields[i].value.u = fields[i].field == 186 ? b->instant : 0;
    }
    return 0;
}
