# What pool_burst.py has Net::Server::PreFork run: prefork.pl PORT MIN MAX SPARE SECONDS
use strict;
use warnings;

package Blocker;
use parent 'Net::Server::PreFork';

my ($port, $min, $max, $spare, $seconds) = @ARGV;

sub process_request {
    my $line = <STDIN>;
    select(undef, undef, undef, $seconds);
    print "OK\n";
}

Blocker->run(
    host              => '127.0.0.1',
    port              => $port,
    ipv               => 4,
    min_servers       => $min,
    max_servers       => $max,
    min_spare_servers => $spare,
    max_spare_servers => $spare,
    no_client_stdout  => 0,
    log_level         => 1,
);
