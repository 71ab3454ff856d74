package daemon

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// durationKey is the attribute whose value is how long the thing took.
const durationKey = "duration"

const (
	maxFields     = 128 // per record; the journal takes 1024
	maxGroupDepth = 8
	maxName       = 64  // the journal drops fields with longer names
	maxTail       = 900 // bytes of the readable tail of MESSAGE
	maxTailValue  = 160 // of one value in it…
	maxTailCause  = 500 // …or of one that says what went wrong or what to do
)

// field is one attribute, ready for the journal.
type field struct {
	name  string // as the journal wants it: CLIENTMOUNT
	label string // as people read it: clientmount
	value string // full value, at most maxValue bytes and a note
	short string // value in the tail of MESSAGE, "" when it is the same
}

// appendFields adds a, with the groups it stands in, to fields. Groups are
// flattened: group "source" with key "path" becomes SOURCE_PATH.
func appendFields(fields []field, groups []string, a slog.Attr) []field {
	if len(fields) >= maxFields || len(groups) > maxGroupDepth {
		return fields
	}
	if a.Value.Kind() == slog.KindLogValuer {
		if e, ok := a.Value.Any().(Event); ok {
			if e.Valid() {
				fields = append(fields, field{name: "MESSAGE_ID", value: e.ID})
			}
			return append(fields, field{name: "EVENT", value: e.Name})
		}
	}
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			groups = append(groups[:len(groups):len(groups)], a.Key)
		}
		for _, member := range v.Group() {
			fields = appendFields(fields, groups, member)
		}
		return fields
	}
	if a.Equal(slog.Attr{}) {
		return fields
	}
	path := append(groups[:len(groups):len(groups)], a.Key)
	f := field{name: fieldName(path), label: strings.Join(path, ".")}
	switch v.Kind() {
	case slog.KindDuration:
		f.short = shortDuration(v.Duration()).String()
		if a.Key == durationKey {
			f.name = fieldName(append(path, "MS"))
			f.value = strconv.FormatFloat(milliseconds(v.Duration()), 'f', -1, 64)
		} else {
			f.value = v.Duration().String()
		}
	case slog.KindTime:
		f.value = v.Time().Format(time.RFC3339Nano)
	default:
		f.value = clip(valueText(v), maxValue)
	}
	return append(fields, f)
}

// fieldName joins path to a name that the journal accepts
// (systemd.journal-fields(7)): A-Z, 0-9 and _, not beginning with a digit or _,
// at most 64 bytes. Names that we set ourselves are kept apart.
func fieldName(path []string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, strings.Join(path, "_"))
	name = strings.TrimLeft(name, "_")
	switch {
	case name == "":
		return "FIELD"
	case name[0] >= '0' && name[0] <= '9':
		name = "F_" + name
	}
	switch name {
	case "MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER":
		name = "F_" + name
	}
	return name[:min(len(name), maxName)]
}

// appendTail adds the fields to a message in the form key=value, so that
// journalctl without options tells the story. It is cut short on purpose: the
// fields hold everything.
func appendTail(b []byte, fields []field) []byte {
	start := len(b)
	for _, f := range fields {
		if f.label == "" {
			continue
		}
		value, limit := f.short, maxTailValue
		if value == "" {
			value = f.value
		}
		if f.label == "error" || f.label == "err" || f.label == "hint" {
			limit = maxTailCause
		}
		value = clip(value, limit)
		if len(b)-start+len(f.label)+len(value) > maxTail {
			return append(b, " …"...)
		}
		b = append(b, ' ')
		b = append(b, text.Escape(f.label)...)
		b = append(b, '=')
		if plain(value) {
			b = append(b, value...)
		} else {
			b = strconv.AppendQuote(b, value)
		}
	}
	return b
}
