package dws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

// The rules of WrapError, one row each.
func TestWrapError(t *testing.T) {
	structured := func(s Severity, typ ErrorType, debug, user string) *ResourceError {
		return &ResourceError{Type: typ, Severity: s, DebugMessage: debug, UserMessage: user}
	}
	tests := []struct {
		name  string
		least Severity
		text  string
		inner error
		want  ResourceError
	}{
		{"plain error becomes Minor", Minor, "outer", errors.New("inner"),
			ResourceError{Internal, Minor, "outer: inner", "", nil}},
		{"empty text adds nothing", Minor, "", errors.New("inner"),
			ResourceError{Internal, Minor, "inner", "", nil}},
		{"major raises Minor", Major, "outer", errors.New("inner"),
			ResourceError{Internal, Major, "outer: inner", "", nil}},
		{"major does not lower Fatal", Major, "outer", structured(Fatal, Internal, "inner", ""),
			ResourceError{Internal, Fatal, "outer: inner", "", nil}},
		{"minor keeps Major", Minor, "outer", structured(Major, Internal, "inner", ""),
			ResourceError{Internal, Major, "outer: inner", "", nil}},
		{"fatal always wins", Fatal, "outer", structured(Minor, Internal, "inner", ""),
			ResourceError{Internal, Fatal, "outer: inner", "", nil}},
		{"type and user message are inherited", Major, "outer", structured(Minor, WLM, "inner", "tell the user"),
			ResourceError{WLM, Major, "outer: inner", "tell the user", nil}},
		{"user type is inherited", Minor, "outer", structured(Minor, User, "inner", ""),
			ResourceError{User, Minor, "outer: inner", "", nil}},
		{"user message replaces an empty debug message", Minor, "outer", structured(Minor, User, "", "said"),
			ResourceError{User, Minor, "outer: said", "said", nil}},
		{"both empty texts", Minor, "", structured(Minor, User, "", "said"),
			ResourceError{User, Minor, "said", "said", nil}},
		{"structured error inside a plain one", Minor, "outer", fmt.Errorf("middle: %w", structured(Fatal, User, "inner", "said")),
			ResourceError{User, Fatal, "outer: middle: inner", "said", nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := WrapError(tt.least, tt.text, tt.inner)
			if !got.SameAs(&tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if !errors.Is(got, tt.inner) {
				t.Error("the cause is lost")
			}
			if got.Error() != got.DebugMessage {
				t.Errorf("Error() = %q", got.Error())
			}
		})
	}
	if got := WrapError(Fatal, "text", nil); got != nil {
		t.Errorf("wrapping nil returned %v", got)
	}
}

func TestWrapTwice(t *testing.T) {
	err := WrapError(Minor, "mount/unmount failed", WrapError(Major, "unable to mount file system", fs.ErrPermission))
	want := ResourceError{Internal, Major, "mount/unmount failed: unable to mount file system: permission denied", "", nil}
	if !err.SameAs(&want) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %+v", err)
	}
}

func TestSameAs(t *testing.T) {
	base := ResourceError{Internal, Minor, "d", "u", nil}
	other := []ResourceError{{User, Minor, "d", "u", nil}, {Internal, Major, "d", "u", nil}, {Internal, Minor, "x", "u", nil}, {Internal, Minor, "d", "x", nil}}
	for _, o := range other {
		if base.SameAs(&o) {
			t.Errorf("%+v equals %+v", base, o)
		}
	}
	if same := (ResourceError{Internal, Minor, "d", "u", errors.New("cause")}); !base.SameAs(&same) {
		t.Error("SameAs compares the cause")
	}
	var none *ResourceError
	if !none.SameAs(nil) || none.SameAs(&base) || base.SameAs(nil) {
		t.Error("nil must equal nil only")
	}
}

// The schema requires type, severity and debugMessage, but no other field.
func TestErrorJSON(t *testing.T) {
	tests := map[string]*ResourceError{
		`{"type":"Internal","severity":"Major","debugMessage":""}`:                       NewError(Major, ""),
		`{"type":"User","severity":"Fatal","debugMessage":"outer: d","userMessage":"u"}`: WrapError(Fatal, "outer", &ResourceError{Type: User, Severity: Minor, DebugMessage: "d", UserMessage: "u"}),
	}
	for want, err := range tests {
		got, jsonErr := json.Marshal(err)
		if jsonErr != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, jsonErr, want)
		}
		var back ResourceError
		if jsonErr := json.Unmarshal(got, &back); jsonErr != nil || !back.SameAs(err) {
			t.Errorf("%s is decoded as %+v, %v", got, back, jsonErr)
		}
	}
}
