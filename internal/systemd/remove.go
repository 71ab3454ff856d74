package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// remove stops and disables the service, and deletes what install has written. A
// unit of the package or of the administrator stays, as do drop-ins; they are
// named. What the daemon has mounted stays mounted.
func (s *Service) remove(ctx context.Context) (notes []string, err error) {
	var ours []string
	known := false
	for _, unit := range s.Units {
		path := s.path(ownDir, unit.Name)
		there, err := present(path)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		known = true
		written, err := s.byInstall(path)
		if err != nil {
			return nil, err
		}
		if written {
			ours = append(ours, path)
		} else {
			notes = append(notes, path+" was not written by install and stays")
		}
	}
	packaged, err := s.packaged()
	switch {
	case err != nil:
		return nil, err
	case packaged:
		notes = append(notes, fmt.Sprintf("%s is the package's and stays: it goes with the package", s.path(packageDir, s.Units[0].Name)))
	case !known:
		return nil, hint.Add(ErrNotInstalled, "%s does not exist, and no package provides one", s.path(ownDir, s.Units[0].Name))
	}
	if err := s.stopAndDisable(ctx); err != nil {
		return nil, err
	}
	for _, path := range ours {
		err = errors.Join(err, os.Remove(path))
	}
	if err = errors.Join(err, s.reload(ctx)); err != nil {
		return nil, err
	}
	for _, path := range s.dropIns() {
		notes = append(notes, path+" is yours and stays")
	}
	return notes, nil
}

// stopAndDisable must be over before a file is deleted: systemd knows no service
// whose unit is gone.
func (s *Service) stopAndDisable(ctx context.Context) error {
	if s.booted() {
		states, err := s.states(ctx)
		if err != nil {
			return err
		}
		if units := loaded(states, state.runs); len(units) > 0 {
			if _, err := s.systemctl(ctx, append([]string{"stop"}, units...)...); err != nil {
				return err
			}
		}
		if units := loaded(states, state.failed); len(units) > 0 {
			_, _ = s.systemctl(ctx, append([]string{"reset-failed"}, units...)...) // or the name would be listed until the next boot
		}
	}
	for _, unit := range s.Units {
		own, err := present(s.path(ownDir, unit.Name))
		if err != nil {
			return err
		}
		shipped, err := present(s.path(packageDir, unit.Name))
		if err != nil {
			return err
		}
		if !own && !shipped {
			continue
		}
		if _, err := s.systemctl(ctx, "disable", unit.Name); err != nil {
			return err
		}
	}
	return nil
}
