// Package testenv runs the real servers that the tests and the demo need: a Notary v1 server with its signer and its
// client, a Kubernetes control plane, and a TLS registry.
//
// It builds them from the pinned modules under hack/ into the user's cache folder, once per version, and runs them on
// free loopback ports with certificates made on the spot. Every process it starts is ended by its own id: by Stop, by
// the test's cleanup, and on Linux by the kernel when the parent dies, so that a test that panics leaves nothing
// behind. It never reaches beyond the loopback interface except through the go command while building, and it is
// never part of the operator.
//
// The functions named Start return a handle with a Stop method. Those named Run do the same for a test: they fail it
// when the server does not come up, show the tail of the server's log when it failed, and stop the server at its end.
package testenv
