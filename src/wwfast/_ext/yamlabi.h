/* The part of libyaml's public interface (yaml.h, ABI 0.so.2) that we use, declared here so that no -dev package
 * is needed to build. The parser is opaque but for its leading error fields; 2048 bytes is four times its size. */
#ifndef WWFAST_YAMLABI_H
#define WWFAST_YAMLABI_H
#include <stddef.h>

typedef struct { size_t index, line, column; } yaml_mark_t;

typedef struct {
    int error; /* yaml_error_type_t */
    const char *problem;
    size_t problem_offset;
    int problem_value;
    yaml_mark_t problem_mark;
    const char *context;
    yaml_mark_t context_mark;
    char opaque[2048];
} yaml_parser_t;

enum { WW_MEMORY_ERROR = 1 }; /* of yaml_error_type_t */

enum {
    WW_NO_EVENT, WW_STREAM_START, WW_STREAM_END, WW_DOCUMENT_START, WW_DOCUMENT_END,
    WW_ALIAS, WW_SCALAR, WW_SEQUENCE_START, WW_SEQUENCE_END, WW_MAPPING_START, WW_MAPPING_END
};

typedef struct { unsigned char *anchor; } event_alias;
typedef struct {
    unsigned char *anchor, *tag, *value;
    size_t length;
    int plain_implicit, quoted_implicit, style;
} event_scalar;
typedef struct { unsigned char *anchor, *tag; int implicit, style; } event_collection; /* sequence or mapping start */
typedef union {
    struct { void *version; struct { void *start, *end; } tags; int implicit; } document_start;
    event_alias alias;
    event_scalar scalar;
    event_collection collection;
} event_data;

typedef struct {
    int type; /* yaml_event_type_t */
    event_data data;
    yaml_mark_t start_mark, end_mark;
} yaml_event_t;

extern int yaml_parser_initialize(yaml_parser_t *parser);
extern void yaml_parser_delete(yaml_parser_t *parser);
extern void yaml_parser_set_input_string(yaml_parser_t *parser, const unsigned char *input, size_t size);
extern int yaml_parser_parse(yaml_parser_t *parser, yaml_event_t *event);
extern void yaml_event_delete(yaml_event_t *event);
#endif
