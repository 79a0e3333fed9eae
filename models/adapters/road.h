/*
 * road.h - options of RoAd.
 */
#ifndef SAW_ROAD_H
#define SAW_ROAD_H

#include "nn/adapter.h"

typedef struct saw_road_options {
    int variant; /* 0, 1, 2: road_1, road_2, road_4 */
    int group;   /* outputs that share a group of pairs; even, and divides them all */
} saw_road_options;

#endif
