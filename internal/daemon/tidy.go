package daemon

import (
	"context"
	"log/slog"
	"strings"
)

// tidy stands before a library's handler and hands it only values that the
// library prints safely and without surprises. What that means differs by
// format, so the two functions are given.
type tidy struct {
	slog.Handler
	message func(string) string
	key     func(string) string
	value   func(key string, v slog.Value) (string, slog.Value) // never a group
}

func (h tidy) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, h.message(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.attr(a))
		return true
	})
	return h.Handler.Handle(ctx, out)
}

func (h tidy) WithAttrs(attrs []slog.Attr) slog.Handler {
	tidied := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		tidied[i] = h.attr(a)
	}
	h.Handler = h.Handler.WithAttrs(tidied)
	return h
}

func (h tidy) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(h.key(name))
	return h
}

func (h tidy) attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		members := v.Group()
		tidied := make([]slog.Attr, len(members))
		for i, m := range members {
			tidied[i] = h.attr(m)
		}
		return slog.Attr{Key: h.key(a.Key), Value: slog.GroupValue(tidied...)}
	}
	if a.Equal(slog.Attr{}) {
		return a // handlers leave these out
	}
	key, v := h.value(h.key(a.Key), v)
	return slog.Attr{Key: key, Value: v}
}

func sameKey(key string) string { return key }

// plainKey replaces what could not stand before the = without quotes.
func plainKey(key string) string {
	if key == "" || plain(key) {
		return key
	}
	return strings.Map(func(r rune) rune {
		if plain(string(r)) {
			return r
		}
		return '_'
	}, key)
}

func clipMessage(s string) string { return clip(s, maxValue) }

// jsonValue keeps numbers, booleans and times; everything else becomes text. The
// duration named duration becomes the number duration_ms, as in the journal.
func jsonValue(key string, v slog.Value) (string, slog.Value) {
	switch v.Kind() {
	case slog.KindDuration:
		if key == durationKey {
			return durationKey + "_ms", slog.Float64Value(milliseconds(v.Duration()))
		}
		return key, slog.StringValue(v.Duration().String())
	case slog.KindString, slog.KindAny:
		return key, slog.StringValue(clip(valueText(v), maxValue))
	default:
		return key, v
	}
}

// textValue is for slog's own text handler, which quotes whatever needs it.
func textValue(key string, v slog.Value) (string, slog.Value) {
	switch v.Kind() {
	case slog.KindDuration:
		return key, slog.DurationValue(shortDuration(v.Duration()))
	case slog.KindString, slog.KindAny:
		return key, slog.StringValue(clip(valueText(v), maxValue))
	default:
		return key, v
	}
}

// tintValue is for tint, which lets escape sequences through on purpose: with
// colours on it even turns the four characters `\x1b` of a quoted string into a
// real escape. Only byte slices are quoted without that, so everything that is
// not plain goes as bytes.
func tintValue(key string, v slog.Value) (string, slog.Value) {
	key, v = textValue(key, v)
	if v.Kind() == slog.KindString && v.String() != "" && !plain(v.String()) {
		return key, slog.AnyValue([]byte(v.String()))
	}
	return key, v
}
