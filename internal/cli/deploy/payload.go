package deploy

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/payload"
)

// payload is what is brought of programs.
func (j *job) payload(ctx context.Context, c *installSettings) (payload.Payload, error) {
	var names []string
	for _, d := range j.daemons {
		if d.Bin != "" {
			names = append(names, d.Bin)
		}
	}
	switch {
	case c.noPrograms || len(names) == 0:
		return payload.Payload{}, nil
	case len(c.rpms) > 0:
		p, skipped, err := payload.Packages(c.rpms, names)
		for _, s := range skipped {
			j.v.Say("note: %s is for none of %s, and is left out", s, strings.Join(names, ", "))
		}
		return p, err
	case c.binaries != "":
		return payload.Programs(c.binaries, names)
	}
	var all payload.Payload
	var built []string
	for _, d := range j.daemons {
		if d.Bin == "" {
			continue
		}
		dir := c.source
		if d.Repository != "" && c.source != "." {
			dir = filepath.Join(c.source, d.Repository)
		}
		command := d.BuildCommand
		if command == "" {
			command = "make build-daemon"
		}
		if key := dir + "\x00" + command; !c.noBuild && !slices.Contains(built, key) {
			built = append(built, key)
			j.v.Say("%s in %s", command, dir)
			if err := payload.Build(ctx, dir, command, j.v.Stderr); err != nil {
				return payload.Payload{}, err
			}
		}
		where := d.Path
		if where == "" {
			where = "bin"
		}
		p, err := payload.Programs(filepath.Join(dir, where), []string{d.Bin})
		if err != nil {
			return payload.Payload{}, err
		}
		all.Programs = append(all.Programs, p.Programs...)
	}
	return all, nil
}
