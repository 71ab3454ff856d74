package doctor

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Limits of the contents of a bundle, in bytes before compression.
const (
	maxPart   = 2 << 20
	maxBundle = 24 << 20
	maxParts  = 500
)

// bundleLimit is how long the collection of a bundle may take, in addition to the checks.
const bundleLimit = 10 * time.Second

// Part is one file of a bundle.
type Part struct {
	Name  string
	Bytes int
	Note  string // what is missing in it; "": it is complete
}

// part is a file of a bundle before it is written.
type part struct {
	name, text, note string
}

// Bundle runs the checks and writes their results, with the configuration, records and logs of the
// daemon and the state of the node, to a new archive. Secrets are removed. It never replaces a file.
// After an error, or if ctx is cancelled, no file is left.
func Bundle(ctx context.Context, o Options, file string) (list []checklist.Check, parts []Part, err error) {
	// O_EXCL does not follow a symbolic link, and only root can read the file from its creation on.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, nil, hint.Add(fmt.Errorf("%s exists", file), "choose another name, or remove the file")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the bundle cannot be created: %w", err)
	}
	created, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			remove(created, file)
		}
	}()
	m := newMachine(o)
	found := m.gather(ctx)
	list = check(found)
	all := m.collect(ctx, found, list)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	parts, err = archive(f, all, found.now)
	if err == nil {
		err = f.Sync()
	}
	return list, parts, err
}

// remove removes the file if it is still the one that was created.
func remove(created os.FileInfo, file string) {
	if now, err := os.Lstat(file); err == nil && os.SameFile(created, now) {
		_ = os.Remove(file)
	}
}

// archive writes the parts, the list of contents first.
func archive(w io.Writer, all []part, now time.Time) (parts []Part, err error) {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	if left := len(all) - maxParts; left > 0 {
		all = append(all[:maxParts:maxParts], part{name: "left-out.txt", note: fmt.Sprintf("left out: %d more files", left)})
	}
	total := 0
	var contents strings.Builder
	for i := range all {
		p := &all[i]
		if len(p.text) > maxPart {
			p.text, p.note = cutLines(p.text, maxPart), fmt.Sprintf("truncated: the first %d of %d bytes", maxPart, len(p.text))
		}
		if total += len(p.text); total > maxBundle && p.text != "" {
			p.text, p.note = "", "left out: the bundle is full"
		}
		if p.note != "" && !(p.text != "" && strings.HasSuffix(p.name, ".json")) { // programs read those
			p.text += "\n[" + p.note + "]\n"
		}
		parts = append(parts, Part{p.name, len(p.text), p.note})
		fmt.Fprintf(&contents, "%8d  %s", len(p.text), p.name)
		if p.note != "" {
			fmt.Fprintf(&contents, "  [%s]", p.note)
		}
		contents.WriteByte('\n')
	}
	for _, p := range append([]part{{name: "CONTENTS", text: contents.String()}}, all...) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: "clientmountd-doctor/" + p.name, Size: int64(len(p.text)), Mode: 0o600, ModTime: now.Truncate(time.Second)}
		if err = t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err = io.WriteString(t, p.text); err != nil {
			return nil, err
		}
	}
	if err = t.Close(); err == nil {
		err = z.Close()
	}
	return parts, err
}

// cutLines returns at most limit bytes of s. It ends with a whole line if there is one: a part of a
// line may be a part of a secret that is not recognized.
func cutLines(s string, limit int) string {
	if i := strings.LastIndexByte(s[:limit], '\n'); i >= 0 {
		return s[:i+1]
	}
	return ""
}
