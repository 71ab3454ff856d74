package target

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// request is what the probe is asked.
func request(w *Want) string {
	var b strings.Builder
	for _, d := range w.Daemons {
		for _, path := range places(&d) {
			fmt.Fprintf(&b, "file %s\n", path)
		}
		token, _ := credentials(d.Name)
		fmt.Fprintf(&b, "claims %s\n", token)
		if d.Bin != "" {
			for _, path := range folders(d.Bin) {
				fmt.Fprintf(&b, "file %s\n", path)
			}
			fmt.Fprintf(&b, "daemon %s\n", d.Bin)
		}
	}
	return b.String() + "end\n"
}

// places are all files that nnf-deploy may have brought for a daemon, besides its
// package and its program.
func places(d *Daemon) []string {
	token, ca := credentials(d.Name)
	list := []string{token, ca}
	switch d.Bin {
	case "":
		return list
	case "nnf-dm":
		list = append(list, "/usr/bin/nnf-dmctl")
	}
	return append(list, settings(d.Bin), dropIn(d.Bin))
}

// archive is a plan as a stream of tar: what is carried, the manifest, and the
// checksums of all of it.
type archive struct {
	members []member
	size    int64
}

func newArchive(p *Plan, run string) *archive {
	a := &archive{members: append([]member(nil), p.members...)}
	daemons := strings.Join(p.bins, "\n")
	if daemons != "" {
		daemons += "\n"
	}
	for name, text := range map[string]string{"manifest": strings.Join(p.steps, "\n") + "\n", "daemons": daemons, "run": run + "\n", "switch.sh": bare(switchText)} {
		data := []byte(text)
		f := file{content: data}
		a.members = append(a.members, member{name: name, sum: f.sum(), data: data, size: int64(len(data))})
	}
	var sums strings.Builder
	for _, m := range a.members {
		fmt.Fprintf(&sums, "%s  %s\n", m.sum, m.name)
	}
	a.members = append(a.members, member{name: "sums", data: []byte(sums.String()), size: int64(sums.Len())})
	for _, m := range a.members {
		a.size += block + (m.size+block-1)/block*block
	}
	a.size += 2 * block // the end
	return a
}

const block = 512

// write writes the archive, exactly a.size bytes of it.
func (a *archive) write(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, m := range a.members {
		if err := t.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Name: m.name, Mode: 0o600, Size: m.size, ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if err := m.write(t); err != nil {
			return err
		}
	}
	return t.Close()
}

func (m *member) write(w io.Writer) error {
	if m.path == "" {
		_, err := w.Write(m.data)
		return err
	}
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := io.Copy(w, io.LimitReader(f, m.size)); err != nil {
		return err
	} else if n != m.size {
		return fmt.Errorf("%s has changed while it was sent", m.path)
	}
	return nil
}
