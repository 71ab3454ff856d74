package nnf

import (
	"encoding/json"
	"testing"
	"time"
)

func TestMicroTime(t *testing.T) {
	noon := time.Date(2025, 4, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]time.Time{
		`"2025-04-01T12:00:00.000000Z"`:          noon,
		`"2025-04-01T12:00:00Z"`:                 noon, // allowed by the schema
		`"2025-04-01T12:00:00.5Z"`:               noon.Add(500 * time.Millisecond),
		`"2025-04-01T12:00:00.123456789Z"`:       noon.Add(123456789),
		`"2025-04-01T07:00:00.000001-05:00"`:     noon.Add(time.Microsecond),
		`null`:                                   {},
		`""`:                                     {},
		`"yesterday"`:                            {},
		`"2025-13-01T12:00:00Z"`:                 {},
		`17`:                                     {},
		`{"a":1}`:                                {},
		`"2025-04-01 11:46:36.535519 -0500 CDT"`: {},
	} {
		got := MicroTime{time.Unix(1, 0)} // must be overwritten
		if err := json.Unmarshal([]byte(in), &got); err != nil || !got.Equal(want) {
			t.Errorf("%s is decoded as %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestMicroTimeJSON(t *testing.T) {
	cdt := time.FixedZone("CDT", -5*3600)
	at := time.Date(2025, 4, 1, 11, 46, 36, 535519999, cdt)
	for _, c := range []struct {
		in   any
		want string
	}{
		{MicroTime{at}, `"2025-04-01T16:46:36.535519Z"`},
		{&MicroTime{at.Truncate(time.Second)}, `"2025-04-01T16:46:36.000000Z"`},
		{MicroTime{}, `null`},
		{(*MicroTime)(nil), `null`},
		{DataMovementStatus{EndTime: NewMicroTime(at)}, `{"endTime":"2025-04-01T16:46:36.535519Z"}`},
	} {
		if got, err := json.Marshal(c.in); err != nil || string(got) != c.want {
			t.Errorf("got %s, %v, want %s", got, err, c.want)
		}
	}
}

// A written time is read back unchanged.
func TestMicroTimeRoundTrip(t *testing.T) {
	want := NewMicroTime(time.Now())
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got MicroTime
	if err := json.Unmarshal(data, &got); err != nil || !got.Equal(want.Time) {
		t.Errorf("%v became %v, %v", want, got, err)
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		`"1m30.25s"`:  90250 * time.Millisecond,
		`"0s"`:        0,
		`"-1s"`:       -time.Second,
		`""`:          0,
		`"soon"`:      0,
		`null`:        0,
		`90`:          0,
		`"99999999h"`: 0, // overflow
	} {
		got := Duration{time.Hour}
		if err := json.Unmarshal([]byte(in), &got); err != nil || got.Duration != want {
			t.Errorf("%s is decoded as %v, %v, want %v", in, got, err, want)
		}
	}
	got, err := json.Marshal(DataMovementCommandStatus{ElapsedTime: Duration{90250 * time.Millisecond}})
	if want := `{"elapsedTime":"1m30.25s"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// An invalid time must not make the rest of the object unreadable.
func TestInvalidTime(t *testing.T) {
	const in = `{"status": {"state": "Finished", "status": "Success", "endTime": "soon", "startTime": 5,
	  "commandStatus": {"elapsedTime": "long", "lastMessageTime": [], "command": "c"}}}`
	d := &DataMovement{}
	if err := json.Unmarshal([]byte(in), d); err != nil {
		t.Fatal(err)
	}
	if s := d.Status; s.State != MovementFinished || s.Status != MovementSuccess || s.CommandStatus.Command != "c" ||
		!s.EndTime.IsZero() || !s.CommandStatus.LastMessageTime.IsZero() {
		t.Errorf("%+v", d.Status)
	}
}
