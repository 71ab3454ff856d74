package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// systemctl asks the service manager for something.
func (s *Service) systemctl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "systemctl", args...)
}

func (s *Service) run(ctx context.Context, name string, args ...string) (string, error) {
	run := s.Machine.Run
	if run == nil {
		run = command
	}
	return run(ctx, name, args...)
}

// command is the Runner of this machine. It has no input, so that nothing can
// ask for a password, and speaks English without colours and pagers.
func command(ctx context.Context, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=cat")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch exit := (*exec.ExitError)(nil); {
	case err == nil:
	case errors.Is(err, exec.ErrNotFound):
		err = hint.Add(fmt.Errorf("%s is not installed", name), "this command needs systemd; without systemd, run the daemon itself, without a command")
	case errors.As(err, &exit) && stderr.Len() > 0:
		err = fmt.Errorf("%s %s: %s", name, strings.Join(args, " "), strings.TrimSpace(stderr.String()))
	default:
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return stdout.String(), err
}
