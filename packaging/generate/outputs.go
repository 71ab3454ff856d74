package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	deploy "github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/packaging/generate/catalog"
	"github.com/compute-daemons/compute-daemons/packaging/generate/completion"
	"github.com/compute-daemons/compute-daemons/packaging/generate/man"
)

// output is a file as it should be.
type output struct{ path, text string }

// outputs are all that is generated, by paths below root.
func outputs(root string) (files []output, err error) {
	kinds, err := catalog.All()
	if err != nil {
		return nil, err
	}
	files = append(files, output{"packaging/catalog/compute-daemons.catalog", catalog.Write(kinds)})

	pages, err := man.Pages()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		files = append(files, output{"packaging/man/" + name, pages[name]})
	}

	files = append(files,
		output{"packaging/completion/" + dmctl.Name, dmctl.Program.Completion()},
		output{"packaging/completion/" + deploy.Name, deploy.Program.Completion()})
	for _, table := range []*config.Table{new(clientmount.Configuration).Table(), new(server.Configuration).Table()} {
		files = append(files, output{"packaging/completion/" + table.Program, completion.Daemon(table)})
		page, err := records(root, table.Program)
		if err != nil {
			return nil, err
		}
		files = append(files, page)
	}
	return files, nil
}

// records is a program's page in docs/ with the table of its records brought up
// to date.
func records(root, program string) (output, error) {
	const begin, end = "<!-- records: written by make generate -->\n", "<!-- end of records -->\n"
	path := "docs/" + program + ".md"
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return output{}, err
	}
	head, rest, ok1 := strings.Cut(string(data), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return output{}, fmt.Errorf("%s has no place for the records: two lines, %q and %q", path, begin, end)
	}
	kinds, err := catalog.Of(program)
	if err != nil {
		return output{}, err
	}
	return output{path, head + begin + catalog.Table(kinds) + end + tail}, nil
}
