package nnf

import (
	"encoding/json"
	"strconv"
	"time"
)

// The schemas say "date-time" and "string" for times and durations, which allows
// more than the writers of the objects intend. A time that cannot be read must not
// hide its object, because a transfer that no client sees never ends. So it reads
// as not set.

const microFormat = "2006-01-02T15:04:05.000000Z07:00"

// MicroTime is a time in an object: written as RFC 3339 in UTC with six digits
// behind the second, read with any number of them.
type MicroTime struct{ time.Time }

// NewMicroTime returns a time as it will be read back: to the microsecond.
func NewMicroTime(t time.Time) *MicroTime { return &MicroTime{t.Truncate(time.Microsecond)} }

// IsZero tells that the time is not set; so does a nil pointer.
func (t *MicroTime) IsZero() bool { return t == nil || t.Time.IsZero() }

// MarshalJSON writes the time, null for the zero time. The receiver is a value,
// so that both values and pointers are written.
func (t MicroTime) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(strconv.Quote(t.UTC().Format(microFormat))), nil
}

// UnmarshalJSON reads the time. What cannot be read is the zero time.
func (t *MicroTime) UnmarshalJSON(data []byte) error {
	*t = MicroTime{}
	// RFC3339 reads fractions that are not in its format.
	if at, err := time.Parse(time.RFC3339, text(data)); err == nil {
		t.Time = at
	}
	return nil
}

// Duration is a duration in an object, as Go writes it: "1m30.25s".
type Duration struct{ time.Duration }

// MarshalJSON writes the duration.
func (d Duration) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote(d.Duration.String())), nil
}

// UnmarshalJSON reads the duration. What cannot be read is 0.
func (d *Duration) UnmarshalJSON(data []byte) error {
	d.Duration, _ = time.ParseDuration(text(data))
	return nil
}

// text returns a JSON string's content, empty for anything else.
func text(data []byte) (s string) {
	if json.Unmarshal(data, &s) != nil {
		return ""
	}
	return s
}
