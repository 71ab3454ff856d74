package server

import (
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// version2 speaks version 2 of the protocol.
type version2 struct {
	pb2.UnimplementedDataMoverServer
	s *Service
}
