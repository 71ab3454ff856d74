// Package units holds the units as they are installed, for the programs that
// can install themselves where the package did not. The folder mirrors
// /usr/lib/systemd.
//
// It must not know what is done with them.
package units

import _ "embed" // the units

// The text of each unit. What a program does not use is not linked into it.
var (
	//go:embed system/clientmountd.service
	ClientmountdService string

	//go:embed system/nnf-dm.service
	NnfdmService string

	//go:embed system/nnf-dm.socket
	NnfdmSocket string
)
