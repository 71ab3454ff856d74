package nnf

import (
	"encoding/json"
	"strconv"
	"time"
)

// The schemas have the types "date-time" and "string" for times and durations, which
// allow more than the programs that write the objects intend. An invalid time is treated
// as not set: it must not make the object unreadable, because clients would never see
// the end of that transfer.

const microFormat = "2006-01-02T15:04:05.000000Z07:00"

// MicroTime is a time in an object: written in RFC 3339 format in UTC with six
// fractional digits, read with any number of them.
type MicroTime struct{ time.Time }

// NewMicroTime returns t truncated to microseconds, so that it is equal when read back.
func NewMicroTime(t time.Time) *MicroTime { return &MicroTime{t.Truncate(time.Microsecond)} }

// IsZero reports whether the time is not set or t is nil.
func (t *MicroTime) IsZero() bool { return t == nil || t.Time.IsZero() }

// MarshalJSON writes the time, null for the zero time. The receiver is a value, so that
// the method applies to values and pointers.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(strconv.Quote(t.UTC().Format(microFormat))), nil
}

// UnmarshalJSON reads the time. An invalid time becomes the zero time.
func (t *MicroTime) UnmarshalJSON(data []byte) error {
	*t = MicroTime{}
	// Parse accepts fractional seconds even though the layout has none.
	if at, err := time.Parse(time.RFC3339, text(data)); err == nil {
		t.Time = at
	}
	return nil
}

// Duration is a duration in an object, in Go format: "1m30.25s".
type Duration struct{ time.Duration }

// MarshalJSON writes the duration.
func (d Duration) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote(d.Duration.String())), nil
}

// UnmarshalJSON reads the duration. An invalid duration becomes 0.
func (d *Duration) UnmarshalJSON(data []byte) error {
	d.Duration, _ = time.ParseDuration(text(data))
	return nil
}

// text returns the content of a JSON string, or "" for any other value.
func text(data []byte) (s string) {
	if json.Unmarshal(data, &s) != nil {
		return ""
	}
	return s
}
