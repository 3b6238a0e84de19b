// What ranks under mpirun do in the tests of tests/ch06_mpi_test.cpp: mpirun -n 4 mpi_ranks SCENE, and
// mpirun -n 8 mpi_ranks layouts, or layouts 20 for more steps than a test has the time for.
//
// Exit codes are those of a program of the book, so that the test sees how a run of it ends.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "common/parallel/launch.h"
#include "tests/ch06_conformance.h"
#include "tests/ch06_layouts.h"

using namespace llm;

namespace {

/// A run of `steps` steps under every layout, beside one on a single rank: by losses and norms of gradients,
/// for putting together the weights would take longer than the steps.
void compare_layouts(Communicator& world, std::int64_t steps) {
  using namespace parallel_test;
  expect_the_same_under_every_layout(
      grid_setup(steps), world.size(),
      [&](const TestRun& r) { return run_on(world, r, [](ParallelTrainer&) {}); }, world.rank() == 0);
  check(!testing::UnitTest::GetInstance()->Failed(), "some layouts differ from one rank alone");
}

void play(const std::string& scene, const std::string& how, Communicator& world) {
  const bool odd_one = world.rank() == 2;
  const Tensor x({100'000}), y({100'000});
  world.barrier();
  if (scene == "conform") {
    conformance::run(world, 1001);
  } else if (scene == "large") {
    conformance::operations(world, 1 << 20, DType::f32, Device::cpu);
  } else if (scene == "device") {
    conformance::run(world, 1001, Device::cuda);
  } else if (scene == "layouts") {
    const std::int64_t few = std::min<std::int64_t>(2, parallel_test::kSteps / 2);
    compare_layouts(world, how.empty() ? few : std::stoll(how));
  } else if (scene == "mismatch") {
    if (odd_one)
      world.broadcast(x, 1).wait();
    else
      world.all_reduce(x).wait();
  } else if (scene == "returns") {
    if (!odd_one) world.all_reduce(x).wait();
  } else if (scene == "throws") {
    if (odd_one) fail("the disk is full");
    world.all_reduce(x).wait();
  } else if (scene == "usage") {
    fail_usage("this makes no sense");
  } else if (scene == "killed") {
    if (odd_one) raise(SIGKILL);
    world.all_reduce(x).wait();
  } else if (scene == "stopped") {
    if (odd_one) raise(SIGSTOP);
    world.all_reduce(x).wait();
  } else if (scene == "stopped in a part") {
    const auto part = world.split(world.rank() % 2, world.rank(), "part");
    if (odd_one) raise(SIGSTOP);
    part->all_reduce(x).wait();
    world.barrier();
  } else if (scene == "deadlock") {  // a large send waits for its recv
    world.send(x, world.rank() ^ 1).wait();
    world.recv(y, world.rank() ^ 1).wait();
  } else if (scene == "misfit") {
    if (world.rank() == 0) world.send(x, 1).wait();
    if (world.rank() == 1) world.recv(Tensor({5}), 0).wait();
  } else {
    fail_usage("there is no scene '{}'", scene);
  }
  if (world.rank() == 0) std::puts("all as it should be");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string scene = argc > 1 ? argv[1] : "", how = argc > 2 ? argv[2] : "";
  WorldOptions options;
  options.check = how != "unchecked" && scene != "layouts";
  if (scene == "layouts") options.communicator.deadline = 60;  // the others wait while rank 0 runs alone
  try {
    run_world(options, [&](Communicator& world) { play(scene, how, world); });
  } catch (const UsageError& e) {
    std::fprintf(stderr, "mpi_ranks: %s\n", e.what());
    return 2;
  } catch (const Error& e) {
    std::fprintf(stderr, "mpi_ranks: %s\n", e.what());
    return 1;
  }
  return 0;
}
