package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var features Features

func TestMain(m *testing.M) {
	if role := os.Getenv("LAB_TEST_ROLE"); role != "" {
		Enter()
		os.Exit(playRole(role))
	}
	features = Enter()
	os.Exit(m.Run())
}

// playRole is what this program does when a test starts it as a victim.
func playRole(role string) int {
	l, err := New("")
	if err != nil {
		fmt.Println("new:", err)
		return 1
	}
	v, err := l.AddVolume("vg", "lv", VolumeOptions{Active: true})
	if err != nil {
		fmt.Println("volume:", err)
		return 1
	}
	fmt.Printf("volume %d dir %s image %q\n", v.Loop, l.Dir, v.Image)
	switch role {
	case "panic":
		defer l.Close()
		panic("as a test would")
	case "wait":
		select {}
	}
	return 0
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	if !features.Private {
		t.Skip("no lab on this machine: " + features.Why)
	}
	l, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return l
}

func (l *Lab) mustVolume(t *testing.T, vg, lv string, o VolumeOptions) *Volume {
	t.Helper()
	v, err := l.AddVolume(vg, lv, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func noLeftovers(t *testing.T, l *Lab) {
	t.Helper()
	left, err := l.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// soon returns a context for what takes a moment on a slow machine.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
