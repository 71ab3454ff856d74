package rabbit

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// plan has the parameters of a command.
type plan struct {
	command          string
	environment      []string
	interval         time.Duration
	logOut, storeOut bool
	hostfile         string
}

// plan prepares the movement: profile, storage, destination, command line. Errors of
// the movement are a *problem.
func (w *worker) plan(ctx context.Context, m *movement, faults Faults) (*plan, error) {
	if w.minors < faults.Minor {
		w.minors++
		return nil, minor("injected minor error %d of %d", w.minors, faults.Minor)
	}
	if faults.Invalid != "" {
		return nil, invalid("Internal", "injected error: %s", faults.Invalid)
	}
	profile, err := w.profile(ctx, m.Spec.ProfileReference)
	if err != nil {
		return nil, err
	}
	if err := w.checkStorage(ctx, m); err != nil {
		return nil, err
	}
	ids := strings.NewReplacer("$UID", strconv.Itoa(m.Spec.UserID), "$GID", strconv.Itoa(m.Spec.GroupID))
	source, destination := mapped(m.Spec.Source.Path, w.Maps), mapped(m.Spec.Destination.Path, w.Maps)
	p := &plan{
		interval: profile.interval(),
		logOut:   profile.LogStdout || m.Spec.UserConfig.LogStdout,
		storeOut: profile.StoreStdout || m.Spec.UserConfig.StoreStdout,
		hostfile: filepath.Join(w.Dir, "hostfiles", string(w.uid)),
	}
	if m.Spec.UserConfig.Dryrun {
		p.command = "true"
		return p, nil
	}
	user := userShell{w: w, profile: profile, ids: ids}
	if destination, err = user.destination(ctx, m, source, destination); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.hostfile, []byte(hosts(profile, m.Spec.UserConfig)), 0o644); err != nil {
		return nil, minor("hostfile: %v", err)
	}
	p.command = commandLine(profile.Command, m.Spec.UserConfig, ids, p.hostfile, source, destination)
	p.environment = faults.environment()
	return p, nil
}

// commandLine replaces the variables in the command of the profile, without quoting.
func commandLine(command string, user userConfig, ids *strings.Replacer, hostfile, source, destination string) string {
	command = strings.ReplaceAll(command, "$HOSTFILE", hostfile)
	command = ids.Replace(command)
	command = strings.ReplaceAll(command, "$SRC", source)
	command = strings.ReplaceAll(command, "$DEST", destination)
	command = insertAfter(command, "mpirun", user.MpirunOptions)
	return insertAfter(command, "dcp", user.DcpOptions)
}

// insertAfter inserts the options after the first occurrence of the program name,
// wherever it is.
func insertAfter(command, program, options string) string {
	before, after, found := strings.Cut(command, program)
	if !found || options == "" {
		return command
	}
	return before + program + " " + options + after
}

// hosts returns a hostfile. It omits slots of 0.
func hosts(p profile, user userConfig) string {
	slots, maxSlots := p.Slots, p.MaxSlots
	if user.Slots != nil {
		slots = *user.Slots
	}
	if user.MaxSlots != nil {
		maxSlots = *user.MaxSlots
	}
	line := "localhost"
	if slots > 0 {
		line += fmt.Sprintf(" slots=%d", slots)
	}
	if maxSlots > 0 {
		line += fmt.Sprintf(" max_slots=%d", maxSlots)
	}
	return line + "\n"
}

// checkStorage checks that the storage of the source exists, because its servers would
// copy. In the namespace of a rabbit, the rabbit itself copies.
func (w *worker) checkStorage(ctx context.Context, m *movement) error {
	if w.mine(w.ns) || w.AnyStorage {
		return nil
	}
	ref := m.Spec.Source.StorageReference
	switch ref.Kind {
	case "NnfNodeStorage":
		return nil
	case "NnfStorage":
	default:
		return invalid("Internal", "storage reference of the source has kind %q instead of NnfStorage", ref.Kind)
	}
	_, err := w.Client.Resource(storages).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || ref.Name == "" {
		return invalid("Internal", "could not find NnfStorage %s/%s (--any-storage skips this check)", ref.Namespace, ref.Name)
	}
	if err != nil {
		return minor("read NnfStorage %s/%s: %v", ref.Namespace, ref.Name, err)
	}
	return nil
}

// userShell runs short commands as the user of the movement.
type userShell struct {
	w       *worker
	profile profile
	ids     *strings.Replacer
}

// destination checks the source, creates the destination directory and returns the
// path to copy to. The path differs from the requested one if the source is in a
// directory per rabbit.
func (u userShell) destination(ctx context.Context, m *movement, source, destination string) (string, error) {
	kind, err := u.stat(ctx, source)
	if err != nil {
		return "", invalid("User", "source %s: %v", source, err)
	}
	dir, name := destination, ""
	if kind != "directory" && !strings.HasSuffix(destination, "/") {
		if kind, err := u.stat(ctx, destination); err != nil || kind != "directory" {
			dir, name = path.Dir(destination), path.Base(destination)
		}
	}
	if index := u.w.indexDirectory(m); index != "" {
		slash := ""
		if strings.HasSuffix(dir, "/") {
			slash = "/"
		}
		dir = path.Join(dir, index) + slash
		destination = dir
		if name != "" {
			destination = path.Join(dir, name)
		}
	}
	if u.profile.CreateDestDir {
		if _, err := u.run(ctx, "mkdir", u.profile.MkdirCommand, dir); err != nil {
			return "", invalid("User", "could not create %s: %v", dir, err)
		}
	}
	return destination, nil
}

// indexDirectory returns the directory of this rabbit in the path of the source, for
// example rabbit-01-3. The copy gets the same directory, so that copies of other
// rabbits do not conflict. If the source is this directory itself, it returns "",
// because the copy includes its name anyway.
func (w *worker) indexDirectory(m *movement) string {
	if !w.mine(w.ns) {
		return ""
	}
	own := regexp.MustCompile("^" + regexp.QuoteMeta(w.ns) + "-[0-9]+$")
	parts := strings.Split(m.Spec.Source.Path, "/")
	for i, part := range parts {
		if own.MatchString(part) {
			if i == len(parts)-1 {
				return ""
			}
			return part
		}
	}
	return ""
}

func (u userShell) stat(ctx context.Context, path string) (string, error) {
	out, err := u.run(ctx, "stat", u.profile.StatCommand, path)
	return strings.TrimSpace(out), err
}

// run replaces the variables in a command of the profile and runs it, as the user if
// the process is root.
func (u userShell) run(ctx context.Context, what, command, path string) (string, error) {
	if u.w.root {
		command = u.profile.SetprivCommand + " " + command
	}
	command = strings.ReplaceAll(u.ids.Replace(command), "$PATH", path)
	u.w.record.write(u.w, what, command)
	out := &tail{}
	err := shell(ctx, command, nil, out)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}
