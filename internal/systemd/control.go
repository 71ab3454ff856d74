package systemd

import (
	"context"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// start starts the service, with its socket before it.
func (s *Service) start(ctx context.Context) error {
	states, err := s.installed(ctx)
	if err != nil {
		return err
	}
	if states[0].up() {
		return ErrRunning
	}
	for _, one := range states {
		if one.load == "masked" {
			return hint.Add(fmt.Errorf("%s is masked", one.unit), "if that is not on purpose, run systemctl unmask %s", one.unit)
		}
	}
	if _, err := s.systemctl(ctx, append([]string{"start"}, loaded(states, state.known)...)...); err != nil {
		return hint.Add(err, "journalctl -u %s -n 20 shows why", s.Name)
	}
	return nil
}

// stop stops the service and its socket, which would start it again.
func (s *Service) stop(ctx context.Context) error {
	states, err := s.installed(ctx)
	if err != nil {
		return err
	}
	units := loaded(states, state.runs)
	if len(units) == 0 {
		return ErrStopped
	}
	_, err = s.systemctl(ctx, append([]string{"stop"}, units...)...)
	return err
}

// status says whether the service runs, in words that scripts know, then the
// state of each unit, and what the daemon reports of itself.
func (s *Service) status(ctx context.Context) (lines []string, err error) {
	states, err := s.installed(ctx)
	if err != nil {
		return nil, err
	}
	service := states[0]
	switch {
	case service.process():
		lines = append(lines, fmt.Sprintf("Service (pid  %s) is running...", service.pid))
	case service.up():
		lines = append(lines, "Service is running...")
	default:
		lines = append(lines, "Service is stopped")
	}
	for _, one := range states {
		if !one.known() {
			continue
		}
		line := fmt.Sprintf("%s: %s (%s)", one.unit, one.active, one.sub)
		if one.result != "" && one.result != "success" {
			line += ", result " + one.result
		}
		if one.file != "" {
			line += ", " + one.file
		}
		lines = append(lines, line)
	}
	if service.status != "" {
		lines = append(lines, "Reported: "+service.status)
	}
	if !service.up() && service.result != "" && service.result != "success" {
		lines = append(lines, fmt.Sprintf("Look at: journalctl -u %s -n 20", s.Name))
	}
	for _, unit := range s.Units {
		advice, err := s.hidden(unit.Name)
		if err != nil {
			return nil, err
		}
		if advice != "" {
			lines = append(lines, "Warning: "+advice)
		}
	}
	return lines, nil
}
