package clientmount

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// recordVersion is the layout of a record. A daemon reads only its own layout
// and older ones; a newer one is left alone and reported.
const recordVersion = 1

// recordLimit bounds the size of a record, in bytes, when it is written and when
// it is read back: what Save accepts, Load can read.
const recordLimit = 4 << 20

// recordSuffix ends the name of a record.
const recordSuffix = ".json"

// halfWritten ends the name of a record that is being written.
const halfWritten = ".new"

// Record remembers, across a crash of the daemon, what was started for one
// ClientMount: it is written before the first effect and removed after the
// last. It is in the runtime directory, so it vanishes with the mounts at a
// reboot.
type Record struct {
	Version   int           `json:"version"`
	Name      string        `json:"name"`
	Namespace string        `json:"namespace"`
	UID       string        `json:"uid"`
	Workflow  string        `json:"workflow,omitempty"`
	Created   time.Time     `json:"created"`
	Mounts    []MountRecord `json:"mounts"`

	onDisk [sha256.Size]byte // of the file that was last read or written
}

// MountRecord is the state of one mount of a ClientMount.
type MountRecord struct {
	Plan plan.Plan `json:"plan"`
	// Directories and files that we made for the target, outermost first.
	Created []string `json:"created,omitempty"`
	// The mount command was about to run and nothing was mounted at the path:
	// what is there afterwards was mounted by that command, even if the daemon
	// died before it could note Mounted.
	Mounting bool `json:"mounting,omitempty"`
	// What the mount table showed right after our mount, nil before.
	Mounted *Identity `json:"mounted,omitempty"`
	// The whole mount sequence was completed in this boot.
	Ready bool `json:"ready,omitempty"`
	// An unmount has started; hooks may have stopped services already.
	Unmounting bool `json:"unmounting,omitempty"`
	// The whole unmount sequence was completed: nothing is left to undo.
	Unmounted bool `json:"unmounted,omitempty"`

	holders string // of the mount, as this process last logged them
}

// isMounted reports whether there is something to undo; false for nil.
func (m *MountRecord) isMounted() bool { return m != nil && !m.Unmounted }

// Identity is how a mount is recognised again: mount id and device are the
// kernel's, so no user can fake them.
type Identity struct {
	ID     int    `json:"id"`
	Device string `json:"device"`
	Root   string `json:"root"`
	FSType string `json:"fstype"`
	Source string `json:"source"`
}

func newRecord(cm *dws.ClientMount, now time.Time) *Record {
	return &Record{
		Version: recordVersion, Name: cm.Name, Namespace: cm.Namespace, UID: string(cm.UID),
		Workflow: cm.Label(api.LabelWorkflowName), Created: now,
	}
}

// clone returns a copy whose mounts can be changed; nil for nil.
func (r *Record) clone() *Record {
	if r == nil {
		return nil
	}
	c := *r
	c.Mounts = slices.Clone(r.Mounts)
	return &c
}

// at returns the record of the mount at path, nil when there is none.
func (r *Record) at(path string) *MountRecord {
	if r == nil {
		return nil
	}
	for i := range r.Mounts {
		if r.Mounts[i].Plan.Path == path {
			return &r.Mounts[i]
		}
	}
	return nil
}

// plans returns the plans of all mounts.
func (r *Record) plans() []*plan.Plan {
	plans := make([]*plan.Plan, len(r.Mounts))
	for i := range r.Mounts {
		plans[i] = &r.Mounts[i].Plan
	}
	return plans
}

// pending reports whether anything may still have to be undone. A nil record
// has nothing.
func (r *Record) pending() bool {
	return r != nil && slices.ContainsFunc(r.Mounts, func(m MountRecord) bool { return !m.Unmounted })
}

// errUnreadable means that a record exists but cannot be used. It is never
// treated like a missing record: something may be mounted.
var errUnreadable = errors.New("record cannot be used")

// Records is the directory of records.
type Records struct {
	dir string
	mu  sync.Mutex // held while update changes a file
	// The records of deleted objects whose files could not be changed, by uid:
	// *Record. Otherwise the same would be undone again and again.
	undone sync.Map
}

// file returns the file of an object's record. It is named by UID: an object that
// was deleted and created again under its old name is another object, and the
// mounts of the old one are then orphans.
func (s *Records) file(uid string) (string, error) {
	if uid == "" || len(uid) > 128 || !text.Only(uid, "-") {
		return "", fmt.Errorf("object uid %.140q is not a uid", uid)
	}
	return filepath.Join(s.dir, uid+recordSuffix), nil
}

// Save replaces the record in one step, so a crash leaves the old or the new.
// A record that is unchanged on disk is not written. There is no fsync: the
// directory is in memory, and the record must survive the daemon, not the machine.
func (s *Records) Save(r *Record) error {
	name, err := s.file(r.UID)
	if err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of %s: %w", r.Name, err)
	}
	if len(b) > recordLimit {
		return fmt.Errorf("cannot save the record of %s: it has %d bytes, the limit is %d; use fewer mounts in one ClientMount or fewer hooks in its storage profile", r.Name, len(b), recordLimit)
	}
	sum := sha256.Sum256(b)
	if st, err := os.Lstat(name); err == nil && sum == r.onDisk && st.Mode().IsRegular() && st.Size() == int64(len(b)) {
		s.undone.Delete(r.UID)
		return nil
	}
	tmp := name + halfWritten
	failpoint.At("record/save")
	err = os.WriteFile(tmp, b, 0o600)
	if err == nil {
		failpoint.At("record/written")
		err = os.Rename(tmp, name)
	}
	if err != nil {
		_ = os.Remove(tmp) // it would take the space that is missing
		return fmt.Errorf("cannot save the record of %s: %w", r.Name, err)
	}
	r.onDisk = sum
	s.undone.Delete(r.UID)
	failpoint.At("record/saved")
	return nil
}

// update changes the record of an object that has no worker of its own, as one
// step against other updates. A record that is gone stays gone; one in which
// nothing is left to undo is removed, which done reports.
func (s *Records) update(uid string, change func(*Record)) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.Load(uid)
	if err != nil || r == nil {
		return r == nil, err
	}
	change(r)
	if r.pending() {
		if err = s.Save(r); err != nil {
			s.undone.Store(uid, r)
		}
		return false, err
	}
	return true, s.Remove(uid)
}

// Load returns the record of one object, or nil if it has no record. Any other
// obstacle is an error that wraps errUnreadable and names the file.
func (s *Records) Load(uid string) (*Record, error) {
	name, err := s.file(uid)
	if err != nil {
		return nil, err
	}
	if r, ok := s.undone.Load(uid); ok {
		if r := r.(*Record); r.pending() {
			return r.clone(), nil
		}
		return nil, nil
	}
	r, err := readRecord(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return r, err
}

// Remove deletes a record; a missing one is fine.
func (s *Records) Remove(uid string) error {
	name, err := s.file(uid)
	if err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.undone.Store(uid, &Record{Version: recordVersion, UID: uid})
		return fmt.Errorf("cannot remove record: %w", err)
	}
	s.undone.Delete(uid)
	return nil
}

// List returns all readable records and an error that joins what could not be
// read; unreadable files stay where they are.
func (s *Records) List() ([]*Record, error) {
	names, err := filepath.Glob(filepath.Join(s.dir, "*"+recordSuffix))
	if err != nil {
		return nil, err
	}
	var out []*Record
	var errs []error
	for _, n := range names {
		if r, ok := s.undone.Load(strings.TrimSuffix(filepath.Base(n), recordSuffix)); ok {
			out = append(out, r.(*Record).clone())
			continue
		}
		r, err := readRecord(n)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

func readRecord(name string) (*Record, error) {
	const repair = "; unmount manually what this ClientMount has mounted (findmnt), then remove the file"
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if !st.Mode().IsRegular() || st.Size() > recordLimit {
		return nil, fmt.Errorf("%w: %s is not a file written by clientmountd (mode %v, %d bytes)%s", errUnreadable, name, st.Mode(), st.Size(), repair)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	var version struct {
		Version int `json:"version"`
	}
	// The version first: a newer layout need not fit ours.
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w%s", errUnreadable, name, err, repair)
	}
	if version.Version > recordVersion {
		return nil, fmt.Errorf("%w: %s has version %d and this clientmountd reads versions up to %d; install the newer clientmountd again to unmount", errUnreadable, name, version.Version, recordVersion)
	}
	r := new(Record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%w: %s is damaged: %w%s", errUnreadable, name, err, repair)
	}
	r.onDisk = sha256.Sum256(b)
	if r.Version < 1 || r.UID == "" || filepath.Base(name) != r.UID+recordSuffix {
		return nil, fmt.Errorf("%w: %s is not a record of the object it is named after (version %d, uid %.140q)%s", errUnreadable, name, r.Version, r.UID, repair)
	}
	return r, nil
}

// OpenRecords makes the directory <runtime>/mounts (0700) if it is missing. The
// commands in a record are run as root, so no other user may be able to put a record
// there: neither directory may be a symbolic link, another user's, or writable by
// others.
func OpenRecords(runtimeDir string) (*Records, error) {
	const hint = "; give the daemon its own directory with daemon.runtime_directory (RuntimeDirectory= in the unit)"
	dir := RecordsDirectory(runtimeDir)
	// The directory above decides who may rename the runtime directory.
	if err := safepath.CheckParent(filepath.Dir(runtimeDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("runtime directory %s cannot be trusted: %w%s", runtimeDir, err, hint)
	}
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be made: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(runtimeDir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("runtime directory cannot be written to: %w%s", err, hint)
	}
	if err := safepath.CheckPrivate(dir); err != nil {
		return nil, fmt.Errorf("runtime directory cannot be trusted: %w%s", err, hint)
	}
	// What a crash left half written was never in force.
	half, err := filepath.Glob(filepath.Join(dir, "*"+recordSuffix+halfWritten))
	for _, name := range half {
		err = errors.Join(err, os.Remove(name))
	}
	if err != nil {
		return nil, fmt.Errorf("runtime directory cannot be tidied up: %w%s", err, hint)
	}
	return &Records{dir: dir}, nil
}

// RecordsDirectory is where the records are, below a runtime directory.
func RecordsDirectory(runtimeDir string) string { return filepath.Join(runtimeDir, "mounts") }

// mountCount is what the records contain about mounts that are in place.
type mountCount struct {
	Objects    int // records, one for each ClientMount, with at least one mount in place
	Unreadable int // records that cannot be used: something may be mounted
}

// mountLister shows what is mounted at exactly a path, as node.Node does.
type mountLister interface {
	MountsOn(path string) ([]node.Mount, error)
}

// countMounted counts records with mounts in place. It changes nothing and touches
// no mount: the record must list one, and the mount table must show it. If
// the table cannot be read the record decides alone. No directory is no mount.
func countMounted(runtimeDir string, table mountLister) (mountCount, error) {
	dir := RecordsDirectory(runtimeDir)
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mountCount{}, nil
	case err != nil:
		return mountCount{}, fmt.Errorf("records cannot be read: %w", err)
	}
	var m mountCount
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordSuffix) {
			continue // one that is half written was never in force
		}
		r, err := readRecord(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			m.Unreadable++
		case slices.ContainsFunc(r.Mounts, func(one MountRecord) bool { return one.inPlace(table) }):
			m.Objects++
		}
	}
	return m, nil
}

// inPlace reports whether the recorded mount is there.
func (m *MountRecord) inPlace(table mountLister) bool {
	if m.Unmounted || m.Mounted == nil && !m.Mounting && !m.Ready {
		return false
	}
	on, err := table.MountsOn(m.Plan.Path)
	return err != nil || slices.ContainsFunc(on, func(one node.Mount) bool {
		return m.Mounted == nil || m.Mounted.is(one) || m.Mounted.Device == one.Device().String()
	})
}
