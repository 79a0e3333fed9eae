/*
 * pattern.h - regular expressions as configurations hold them, matched in time linear in the text.
 *
 * Understood: literals, `.`, classes `[a-z]` and `[^...]`, `\d \w \s` and their opposites, `\.` and
 * the like, groups `( )` and `(?: )`, `|`, `* + ?` and `{m,n}` (also with a `?` behind), `^` and
 * `$`.
 */
#ifndef SAW_PATTERN_H
#define SAW_PATTERN_H

#include "base/base.h"

typedef struct saw_pattern saw_pattern;
/** SAW_ERR_FORMAT with a sentence when it is something else, or larger than 4000 steps. */
saw_status saw_pattern_open(saw_context *ctx, const char *text, saw_pattern **out);
void saw_pattern_close(saw_pattern *p);
/** Whether the whole text matches. */
bool saw_pattern_matches(saw_pattern *p, const char *text);

#endif
