package hint

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	plain, other := errors.New("no socket"), errors.New("no disk")
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"plain":        {plain, "p: error: no socket\n"},
		"hint":         {Add(plain, "start %s", "it"), "p: error: no socket\np: hint: start it\n"},
		"wrapped":      {fmt.Errorf("job: %w", Add(plain, "start it")), "p: error: job: no socket\np: hint: start it\n"},
		"two hints":    {Add(fmt.Errorf("job: %w", Add(plain, "start it")), "or wait"), "p: error: job: no socket\np: hint: start it; or wait\n"},
		"question":     {Add(Add(plain, "did you mean x?"), "see p --help"), "p: error: no socket\np: hint: did you mean x? see p --help\n"},
		"joined":       {errors.Join(Add(plain, "start it"), other), "p: error: no socket\np: hint: start it\np: error: no disk\n"},
		"nested":       {errors.Join(errors.Join(plain, other), plain), "p: error: no socket\np: error: no disk\np: error: no socket\n"},
		"one sentence": {fmt.Errorf("%w and %w", Add(plain, "start it"), Add(other, "buy one")), "p: error: no socket and no disk\np: hint: start it; buy one\n"},
		"lines":        {errors.New("one\ntwo\n"), "p: error: one\np: error: two\n"},
		"hostile":      {Add(errors.New("a\x1b[31m\u202e"), "b\x07\nc"), "p: error: a\\x1b[31m\\u202e\np: hint: b\\a\\nc\n"},
	} {
		var b strings.Builder
		if Write(&b, "", "p", tt.err); b.String() != tt.want {
			t.Errorf("%s:\n%swant\n%s", name, b.String(), tt.want)
		}
	}
	var b strings.Builder
	if Write(&b, "<3>", "p", Add(plain, "start it")); b.String() != "<3>p: error: no socket\n<3>p: hint: start it\n" {
		t.Error(b.String())
	}
}

func TestAdd(t *testing.T) {
	cause := errors.New("x")
	err := Add(cause, "y")
	if !errors.Is(err, cause) || err.Error() != "x" || Of(err) != "y" || Of(cause) != "" || Of(nil) != "" {
		t.Errorf("%v, %q", err, Of(err))
	}
	if err := Add(nil, "y"); err != nil {
		t.Error(err)
	}
}
