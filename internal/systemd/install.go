package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// install enables the service without starting it. If no package provides the unit, it
// first writes one with these arguments. If a step fails, it undoes the previous steps.
func (s *Service) install(ctx context.Context, args []string) (notes []string, err error) {
	for _, unit := range s.Units {
		path := s.path(UnitDirectory, unit.Name)
		if there, err := present(path); err != nil {
			return nil, err
		} else if there {
			if advice, err := s.hidden(unit.Name); err != nil || advice != "" {
				return nil, errors.Join(err, hint.Add(ErrInstalled, "%s", advice))
			}
			return nil, hint.Add(ErrInstalled, "%s exists: change it with a drop-in (systemctl edit %s), or run %s remove first", path, s.Name, s.Name)
		}
	}
	packaged, err := s.packaged()
	if err != nil {
		return nil, err
	}
	if packaged {
		return s.enablePackaged(ctx, args)
	}
	texts, err := s.texts(args)
	if err != nil {
		return nil, err
	}
	if s.User != "" {
		// Packages create the user. An existing user is not an error.
		if _, err := s.run(ctx, "systemd-sysusers", "--inline", fmt.Sprintf("u %s - %q", s.User, s.Description)); err != nil {
			return nil, hint.Add(fmt.Errorf("cannot create the user %s: %w", s.User, err), "create it as a system user without a shell")
		}
	}
	var done []string
	defer func() {
		if err != nil {
			err = errors.Join(err, s.rollBack(context.WithoutCancel(ctx), done))
		}
	}()
	for i, unit := range s.Units {
		path := s.path(UnitDirectory, unit.Name)
		if err := create(path, texts[i]); errors.Is(err, fs.ErrExist) {
			return nil, ErrInstalled // another process created it in the meantime
		} else if err != nil {
			return nil, err
		}
		done = append(done, path)
		notes = append(notes, path+": written")
	}
	if err := s.reload(ctx); err != nil {
		return nil, err
	}
	if err := s.enable(ctx, texts); err != nil {
		return nil, err
	}
	return notes, nil
}

func (s *Service) texts(args []string) (texts []string, err error) {
	program, err := s.program()
	if err != nil {
		return nil, err
	}
	for _, unit := range s.Units {
		text, err := s.render(unit, program, args)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	return texts, nil
}

func (s *Service) enablePackaged(ctx context.Context, args []string) (notes []string, err error) {
	var texts []string
	for _, unit := range s.Units {
		text, err := os.ReadFile(s.path(PackageDirectory, unit.Name))
		if err != nil {
			return nil, err
		}
		texts = append(texts, string(text))
	}
	notes = append(notes, s.path(PackageDirectory, s.Units[0].Name)+" belongs to the package: enabled, no file written")
	if len(args) > 0 {
		notes = append(notes, fmt.Sprintf("the arguments are ignored (%s): set them in the configuration file or in a drop-in (systemctl edit %s)", strings.Join(args, " "), s.Name))
	}
	return notes, s.enable(ctx, texts)
}

func (s *Service) enable(ctx context.Context, texts []string) error {
	for i, unit := range s.Units {
		if !enables(texts[i]) {
			continue
		}
		if _, err := s.systemctl(ctx, "enable", unit.Name); err != nil {
			return err
		}
	}
	return nil
}

// reload makes systemd reload the units, if it is running.
func (s *Service) reload(ctx context.Context) error {
	if !s.booted() {
		return nil
	}
	_, err := s.systemctl(ctx, "daemon-reload")
	return err
}

// rollBack undoes the steps of a failed install.
func (s *Service) rollBack(ctx context.Context, done []string) (err error) {
	if len(done) == 0 {
		return nil
	}
	for _, unit := range s.Units {
		_, _ = s.systemctl(ctx, "disable", unit.Name) // usually not enabled yet
	}
	for _, path := range done {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, s.reload(ctx))
}

// remove stops and disables the service, and deletes the units that install has written.
// It keeps units of the package or of the administrator, and drop-ins, and lists them in
// the notes. Mounts of the daemon stay.
func (s *Service) remove(ctx context.Context) (notes []string, err error) {
	var ours []string
	known := false
	for _, unit := range s.Units {
		path := s.path(UnitDirectory, unit.Name)
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
			notes = append(notes, path+" was not written by install and is kept")
		}
	}
	packaged, err := s.packaged()
	switch {
	case err != nil:
		return nil, err
	case packaged:
		notes = append(notes, fmt.Sprintf("%s belongs to the package and is kept: to delete it, remove the package", s.path(PackageDirectory, s.Units[0].Name)))
	case !known:
		return nil, hint.Add(ErrNotInstalled, "%s does not exist, and no package provides one", s.path(UnitDirectory, s.Units[0].Name))
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
		notes = append(notes, path+" is a local drop-in and is kept")
	}
	return notes, nil
}

// stopAndDisable must be called before a unit is deleted: systemd cannot disable a
// service without a unit.
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
			_, _ = s.systemctl(ctx, append([]string{"reset-failed"}, units...)...) // otherwise the name would be listed until the next boot
		}
	}
	for _, unit := range s.Units {
		own, err := present(s.path(UnitDirectory, unit.Name))
		if err != nil {
			return err
		}
		shipped, err := present(s.path(PackageDirectory, unit.Name))
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
