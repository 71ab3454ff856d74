package dmctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

var versionCommand = &command{
	Name: "version", Short: "show the versions of this program and of the daemon",
	Long: "--version shows the version of this program only and does not contact the daemon.",
	Run:  withDaemon(runVersion),
}

type versionDocument struct {
	Client string   `json:"client"`
	Daemon string   `json:"daemon,omitempty"`
	APIs   []string `json:"api_versions,omitempty"`
}

func runVersion(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	d, err := v.client.Version(ctx)
	if v.output == formatJSON {
		if werr := text.JSON(v.Stdout, versionDocument{version.Version, d.Version, d.APIVersions}); werr != nil {
			return werr
		}
		return cli.Interrupted(ctx, err)
	}
	fmt.Fprintln(v.Stdout, version.Line(Name))
	if err == nil {
		_, err = fmt.Fprintf(v.Stdout, "nnf-dm %s (API %s)\n", text.Line(d.Version), text.Line(strings.Join(d.APIVersions, ", ")))
	}
	return cli.Interrupted(ctx, err)
}
