package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// compare finds each kind of difference.
func TestCompare(t *testing.T) {
	uid := os.Getuid()
	for _, tt := range []struct {
		name   string
		change func(copied string) error
		want   string // part of the error, empty for none
	}{
		{"equal", func(string) error { return nil }, ""},
		{"a file is missing", func(c string) error { return os.Remove(filepath.Join(c, "step-1", "rank", "3")) }, "no such file"},
		{"an additional file", func(c string) error { return os.WriteFile(filepath.Join(c, "more"), nil, 0o600) }, "34 files"},
		{"an additional directory", func(c string) error { return os.Mkdir(filepath.Join(c, "more"), 0o755) }, "10 directories"},
		{"different content", func(c string) error {
			return os.WriteFile(filepath.Join(c, "empty"), []byte("x"), 0o600)
		}, "differs"},
		{"one byte in the middle", func(c string) error {
			f, err := os.OpenFile(filepath.Join(c, "step-0", "rank", "7"), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("?"), 100_000)
			return errors.Join(err, f.Close())
		}, "differs"},
		{"different mode", func(c string) error { return os.Chmod(filepath.Join(c, "empty"), 0o640) }, "has mode"},
		{"different link target", func(c string) error {
			return errors.Join(os.Remove(filepath.Join(c, "newest")), os.Symlink("step-2", filepath.Join(c, "newest")))
		}, "differs"},
		{"a file instead of a link", func(c string) error {
			return errors.Join(os.Remove(filepath.Join(c, "newest")), os.WriteFile(filepath.Join(c, "newest"), []byte("step-3"), 0o777))
		}, "has mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			original, copied := filepath.Join(dir, "original"), filepath.Join(dir, "copied")
			made, err := plant(original, uid)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := plant(copied, uid); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(copied); err != nil {
				t.Fatal(err)
			}
			got, err := compare(original, copied, uid)
			switch {
			case tt.want == "" && (err != nil || got != made):
				t.Errorf("%v, %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := compare(t.TempDir(), t.TempDir(), uid+1); err == nil {
		t.Error("a wrong owner was not detected")
	}
}

func TestInset(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := (&screen{file: f}).inset()
	for _, part := range []string{"one\ntw", "o\n", "\n", "three"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || string(got) != "  one\n  two\n  \n  three" {
		t.Errorf("%q %v", got, err)
	}
}
