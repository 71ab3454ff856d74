// Package fleet has a fleet of compute nodes for nnf-deploy: each is a container
// with systemd and an sshd of its own, behind a line that the test can cut, slow
// down or silence. The API server is real, as are the administrator's ssh, its
// configuration and its keys, which are made for the test.
//
// It must not know how nnf-deploy does its work: it looks at what lies and runs
// on the nodes afterwards.
package fleet
