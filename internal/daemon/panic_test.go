package daemon

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestSafely(t *testing.T) {
	if err := Safely(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := Safely(func() error { return fs.ErrExist }); err != fs.ErrExist {
		t.Errorf("changed the error: %v", err)
	}
	err := Safely(func() error { panic("boom") })
	var p *PanicError
	if !errors.As(err, &p) || err.Error() != "panic: boom" || !strings.Contains(string(p.Stack), "TestSafely") {
		t.Errorf("got %#v", err)
	}
	if err := Safely(func() error { panic(fs.ErrExist) }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the cause is lost: %v", err)
	}
	var nilMap map[string]int
	if err := Safely(func() error { nilMap["x"] = 1; return nil }); err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("runtime error: %v", err)
	}
}
