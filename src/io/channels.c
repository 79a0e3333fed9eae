/*
 * channels.c - files and models with different channel counts; the rule is in audio.h. With k of
 * the model's C channels in a group, model channel c is file channel c mod k of the group, and the
 * way back is the mean over those c.
 */
#include "io/wav.h"

#include <string.h>

int saw_channel_groups(int file_channels, int model_channels)
{
    return (file_channels + model_channels - 1) / model_channels;
}

static int in_group(int file_channels, int model_channels, int group)
{
    int left = file_channels - group * model_channels;
    return left < model_channels ? left : model_channels;
}

void saw_channel_in(const float *const *file, int file_channels, int group, int64_t frames,
                    float *const *model, int model_channels)
{
    int k = in_group(file_channels, model_channels, group);
    for (int c = 0; c < model_channels; c++)
        memcpy(model[c], file[group * model_channels + c % k], sizeof(float) * (size_t)frames);
}

void saw_channel_out(const float *const *model, int model_channels, int64_t frames,
                     float *const *file, int file_channels, int group)
{
    int k = in_group(file_channels, model_channels, group);
    for (int j = 0; j < k; j++) {
        float *to = file[group * model_channels + j];
        int copies = (model_channels - j + k - 1) / k;
        for (int64_t i = 0; i < frames; i++) {
            float sum = model[j][i];
            for (int c = j + k; c < model_channels; c += k)
                sum += model[c][i];
            to[i] = copies == 1 ? sum : sum / (float)copies;
        }
    }
}

/*
 * WAV: left right centre low-frequency, back, side; Vorbis (specification I, 4.3.9): left centre
 * right, side, back, low-frequency.
 */
int saw_vorbis_place(int c, int channels)
{
    static const uint8_t places[9][8] = {[3] = {0, 2, 1},
                                         [5] = {0, 2, 1, 3, 4},
                                         [6] = {0, 2, 1, 5, 3, 4},
                                         [7] = {0, 2, 1, 6, 5, 3, 4},
                                         [8] = {0, 2, 1, 7, 5, 6, 3, 4}};
    return channels == 3 || (channels >= 5 && channels <= 8) ? places[channels][c] : c;
}
