// Command sleep is what runs in the images of the test: it waits until it is told to end. It is the
// pause of Pods too.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	<-told
}
