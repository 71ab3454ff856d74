package deploy

import (
	"context"
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

var versionCommand = &command{Name: "version", Short: "show the version of this program", Run: runVersion}

func runVersion(_ context.Context, v *call) error {
	if v.output == formatJSON {
		return text.JSON(v.Stdout, struct {
			Version string `json:"version"`
		}{version.Version})
	}
	_, err := fmt.Fprintln(v.Stdout, version.Line(Name))
	return err
}
