package node

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCommandString(t *testing.T) {
	for _, tt := range []struct {
		c    Command
		want string
	}{
		{Command{Argv: []string{"mount", "-t", "xfs", "/dev/mapper/a-lv", "/mnt/nnf/x-0"}}, "mount -t xfs /dev/mapper/a-lv /mnt/nnf/x-0"},
		{Command{Argv: []string{"vgs", "--select", "vg_name=v_0"}}, "vgs --select vg_name=v_0"},
		{Command{Argv: []string{"mount", "10.1.1.1@o2ib:/fs", "/mnt/a b"}}, "mount 10.1.1.1@o2ib:/fs '/mnt/a b'"},
		{Command{Argv: []string{"echo", "", "it's", "$HOME", "é", "a\nb"}}, `echo '' 'it'\''s' '$HOME' 'é' 'a` + "\nb'"},
		{Command{Shell: `echo "$X" | cat  # as it is`}, `echo "$X" | cat  # as it is`},
		{Command{}, ""},
	} {
		if got := tt.c.String(); got != tt.want {
			t.Errorf("%#v: got %q, want %q", tt.c, got, tt.want)
		}
	}
}

// Programs parse this text.
func TestCommandErrorText(t *testing.T) {
	err := &CommandError{
		Line:   "mount -t xfs /dev/mapper/a-lv /mnt/nnf/x-0",
		Stderr: "mount: wrong fs type",
		Err:    ExitStatus(32),
	}
	want := "command: mount -t xfs /dev/mapper/a-lv /mnt/nnf/x-0 - stderr: mount: wrong fs type - stdout:  - error: exit status 32"
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	wrapped := fmt.Errorf("could not: %w", err)
	if s, ok := errors.AsType[ExitStatus](wrapped); !ok || s != 32 {
		t.Error("the exit status is lost")
	}
}

func TestCommandErrorBoundsTheLine(t *testing.T) {
	err := &CommandError{Line: strings.Repeat("é", 1<<20), Err: fs.ErrInvalid}
	if n := len(err.Error()); n > maxLine+200 {
		t.Errorf("%d bytes of text", n)
	}
}

func TestIsBusy(t *testing.T) {
	busy := "umount: /mnt/x: target is busy.\n"
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"umount", &CommandError{Stderr: busy, Err: ExitStatus(32)}, true},
		{"old umount, wrapped", fmt.Errorf("x: %w", &CommandError{Stderr: "umount: /mnt/x: device is busy.", Err: ExitStatus(32)}), true},
		{"other status", &CommandError{Stderr: busy, Err: ExitStatus(1)}, false},
		{"other text", &CommandError{Stderr: "umount: /mnt/x: not mounted.", Err: ExitStatus(32)}, false},
		{"on the wrong stream", &CommandError{Stdout: busy, Err: ExitStatus(32)}, false},
		{"kernel", &fs.PathError{Op: "remove", Path: "/mnt/x", Err: unix.EBUSY}, true},
		{"other", unix.ENOENT, false},
	} {
		if got := IsBusy(tt.err); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestIsInUse(t *testing.T) {
	failed := func(status int, text string) error { return &CommandError{Stderr: text, Err: ExitStatus(status)} }
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"none", nil, false},
		{"file system", failed(5, "  Logical volume vg/lv contains a filesystem in use.\n"), true},
		{"open, wrapped", fmt.Errorf("x: %w", failed(5, "  Logical volume vg/lv in use.\n")), true},
		{"stacked", failed(5, "  Logical volume vg/lv is used by another device.\n"), true},
		{"group", failed(5, "  Can't deactivate volume group \"vg\" with 1 open logical volume(s)\n"), true},
		{"dmsetup", failed(1, "device-mapper: remove ioctl on vg-lv  failed: Device or resource busy\nCommand failed.\n"), true},
		{"among other messages", failed(5, "  WARNING: x\n  Logical volume vg/lv in use.\n  Unable to deactivate.\n"), true},
		{"success with a warning", failed(0, "  Logical volume vg/lv in use.\n"), false},
		{"wrong stream", &CommandError{Stdout: "  Logical volume vg/lv in use.\n", Err: ExitStatus(5)}, false},
		{"locked elsewhere", failed(5, "  LV locked by other host: vg/lv\n  Failed to lock logical volume vg/lv.\n"), false},
		{"absent", failed(5, "  Failed to find logical volume \"vg/lv\"\n"), false},
		{"not started", &CommandError{Stderr: "Logical volume vg/lv in use.", Err: unix.ENOENT}, false},
		{"kernel", unix.EBUSY, true},
	} {
		if got := IsInUse(tt.err); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
