// The plot of the stories: what can be said, in which order, and what follows from it. Chapter 1.
//
// Somebody wants a thing, for a reason, and makes a promise. Then the thing is with a friend who asks for
// something in return, or it is stuck and a friend brings a tool, or it is lost and a friend has seen it. It
// ends well if what is done agrees with what was said. That is the moral, and what a language model has to
// learn: to listen.
//
// The numbers are weights: a sentence of weight 2 is told twice as often as one of weight 1 in the same beat.
#include "common/text/story_grammar.h"

namespace llm {
namespace {

void opening(Voice& voice) {
  static const Beat beat{
      "who the story is about",
      {
          {3, "One {weather} {daytime}, a {trait} {hero.kind} named {hero} sat {home.at}."},
          {2, "On a {weather} {daytime}, {hero} the {trait} {hero.kind} was {home.at}."},
          {2, "{Hero} was a {trait} {hero.kind}. One {weather} {daytime}, {hero.he} sat {home.at}."},
          {2, "It was a {weather} {daytime}, and a {trait} {hero.kind} named {hero} was {home.at}."},
          {1, "There was a {trait} {hero.kind} {home.at} one {weather} {daytime}. It was {hero}."},
      }};
  voice.tell(beat);
}

void wish(Voice& voice) {
  static const Beat beat{"what {hero} wants, and why",
                         {
                             {3, "{Hero.he} wanted the {colour} {thing} to {use}."},
                             {2, "\"I need the {colour} {thing} to {use},\" {hero.he} said."},
                             {2, "{Hero} wished for the {colour} {thing}, to {use}."},
                             {2, "{Hero.he} had a plan: get the {colour} {thing} and {use}."},
                             {1, "If only {hero.he} had the {colour} {thing} to {use}!"},
                         }};
  voice.tell(beat);
  static const Beat promise{"what {hero} promises to do with the {thing}",
                            {
                                {3, "\"If I get it, I will {vow},\" {hero.he} said."},
                                {2, "\"I would {vow} to have it!\" said {hero}."},
                                {2, "{Hero.he} promised to {vow} if {hero.he} got it."},
                                {1, "\"When I have it, I will {vow},\" {hero.he} promised."},
                            }};
  voice.tell(promise);
}

void ending(Voice& voice, bool happy) {
  static const Beat glad{
      "how glad {hero} is to have the {thing}, and how {hero.he} keeps the promise to {vow}",
      {
          {3, "{Hero} was so {glad} that {hero.he} {vow.did}."},
          {2, "{Hero} was {glad} and {vow.did}, just as {hero.he} had said."},
          {2, "So a very {glad} {hero.kind} {vow.did}."},
          {2, "Then {hero} and {friend} {vow.did}, and both were {glad}."},
          {1, "{Hero} {vow.did} and was {glad} all day."},
      },
      {{kHero, "{found} is glad of the {thing} that {hero} wanted and got"},
       {kFriend, "{found} shares the joy of {hero}, but it was {friend} who helped"}}};
  static const Beat sad{"how sad {hero} is without the {thing}",
                        {
                            {3, "{Hero} was {sad} and did not {vow}."},
                            {2, "So nobody {vow.did}, and {hero} was {sad}."},
                            {2, "\"Then I will not {vow},\" said the {sad} {hero.kind}."},
                            {2, "{Hero} went home without the {thing}, and {hero.he} was {sad}."},
                            {1, "And a {sad} {hero.kind} did not {vow}."},
                        },
                        {{kHero, "{found} is sad for the {thing} that {hero} wanted and did not get"}}};
  voice.tell(happy ? glad : sad);
}

/// To where the friend is.
void go_there(Voice& voice) {
  static const Beat beat{"how {hero} gets to the {there}",
                         {
                             {3, "So {hero} {move} to the {there}, and {there.at} sat {friend}."},
                             {2, "Off {hero.he} {move} to the {there}!"},
                             {2, "{Hero.he} {move} to the {there} to ask {friend} for it."},
                             {2, "{Hero} {move} all the way to the {there}."},
                         },
                         {{kThere, "{friend} and the {thing} are {there.at}, but {hero} goes to the {found}"},
                          {kHero, "{hero} wants the {thing}, but here it is {found} who goes to get it"}}};
  voice.tell(beat);
}

/// The friend wants another thing for it, and the hero brings that or something else.
Ending barter(Voice& voice) {
  enum { kRight, kWrong };
  static const Beat set_out{"how {hero} sets out to find a {gift} for {friend}",
                            {
                                {3, "\"A {gift}? Just wait,\" said {hero}."},
                                {2, "{Hero} had no {gift}, so {hero.he} went home."},
                                {2, "\"Where is a {gift}?\" asked {hero}, and went home."},
                            },
                            {{kHero, "{friend} asked {hero} for a {gift}, but here {found} looks for it"}}};
  static const Beat fetch{"what {hero} brings to {friend}, who asked for a {gift}",
                          {
                              {2, "{Hero} went to the {store} and found a {gift}.", kRight},
                              {1, "{Hero.he} {move} to the {store} and brought a {gift}.", kRight},
                              {1, "Soon {hero} came back from the {store} with a {gift}.", kRight},
                              {2, "{Hero} found only a {brought} {store.at}.", kWrong},
                              {1, "{Hero.he} {move} to the {store}, but brought a {brought}.", kWrong},
                              {1, "Soon {hero} came back from the {store}, but with a {brought}.", kWrong},
                          },
                          {{kHero, "{friend} asked {hero} for a {gift}, but here {found} goes to get it"}}};
  static const Beat deal{"how {friend} takes the {gift} and gives {hero} the {thing}",
                         {
                             {2, "{Friend} took the {gift} and gave {hero} the {thing}."},
                             {2, "{Friend} liked the {gift}, and {hero} got the {thing}."},
                             {1, "\"A {gift}!\" said {friend}, and gave {hero.him} the {thing}."},
                         },
                         {{kFriend, "{found} gives away the {thing} that {friend} holds"},
                          {kHero, "{found} gets the {thing}, but it was {hero} who brought the {gift}"},
                          {kGift, "{hero} brought a {gift}, but {friend} gets a {found}"},
                          {kThing, "{friend} gives away the {found}, but holds the {thing}"}}};
  static const Beat no_deal{"how {friend} keeps the {thing}, since a {brought} is not a {gift}",
                            {
                                {2, "\"A {brought} is not a {gift},\" said {friend}, and kept the {thing}."},
                                {2, "{Friend} wanted a {gift}, not a {brought}, and kept the {thing}."},
                                {1, "\"Is that a {gift}?\" asked {friend}, and kept the {thing}."},
                            },
                            {{kFriend, "{found} keeps the {thing} that {friend} holds"}}};
  voice.tell(set_out);
  const bool right = voice.tell(fetch) == kRight;
  const Ending end{right, voice.beats.size()};
  voice.tell(right ? deal : no_deal);
  return end;
}

/// The friend asks for a bit of fun, and the hero does that or something else.
Ending dare(Voice& voice) {
  enum { kRight, kWrong };
  static const Beat act{"what {hero} does when {friend} asks {hero.him} to {dare}",
                        {
                            {2, "So {hero} {dare.did}.", kRight},
                            {1, "{Hero} laughed and {dare.did}.", kRight},
                            {1, "At once {hero.he} {dare.did}.", kRight},
                            {2, "{Hero} just {done.did}.", kWrong},
                            {1, "But {hero} {done.did} instead.", kWrong},
                            {1, "But {hero.he} only {done.did}.", kWrong},
                        },
                        {{kHero, "{friend} asked {hero}, but here it is {found} who does it"}}};
  static const Beat deal{"how {friend} gives {hero} the {thing}",
                         {
                             {2, "{Friend} laughed and gave {hero} the {thing}."},
                             {2, "\"Well done,\" said {friend}, and {hero} got the {thing}."},
                             {1, "\"Well done!\" said {friend}, and gave {hero.him} the {thing}."},
                         },
                         {{kFriend, "{found} gives away the {thing} that {friend} holds"},
                          {kHero, "{found} gets the {thing}, but it was {hero} who earned it"},
                          {kThing, "{friend} gives away the {found}, but holds the {thing}"}}};
  static const Beat no_deal{"how {friend} keeps the {thing}, since {hero} did not {dare}",
                            {
                                {2, "\"I asked you to {dare}!\" said {friend}, and kept the {thing}."},
                                {2, "{Friend} had said to {dare}, and kept the {thing}."},
                                {1, "\"I said to {dare},\" said {friend}, and kept the {thing}."},
                            },
                            {{kFriend, "{found} keeps the {thing} that {friend} holds"}}};
  const bool right = voice.tell(act) == kRight;
  const Ending end{right, voice.beats.size()};
  voice.tell(right ? deal : no_deal);
  return end;
}

/// A friend has the thing.
Ending with_a_friend(Voice& voice) {
  go_there(voice);
  enum { kBarter, kDare, kYes, kNo };
  static const Beat answer{
      "what {friend} says about the {thing}",
      {
          {4, "\"Bring me a {gift} and it is yours,\" said {friend}.", kBarter},
          {3, "\"You may have it for a {gift},\" said {friend}.", kBarter},
          {2, "\"I would rather have a {gift},\" said {friend}.", kBarter},
          {2, "\"First you must {dare},\" said {friend}.", kDare},
          {1, "\"It is yours if you {dare},\" said {friend}.", kDare},
          {1, "{Friend} asked {hero.him} to {dare} first.", kDare},
          {1, "\"Take it, I have two,\" said {friend}, and {hero} got the {thing}.", kYes},
          {1, "{Friend} was tired of it and gave {hero} the {thing}.", kYes},
          {2, "\"No, I need it to {other_use},\" said {friend}.", kNo},
      },
      {{kFriend, "{friend} has the {thing}, but here {found} answers for it"}}};
  switch (voice.tell(answer)) {
    case kBarter:
      return barter(voice);
    case kDare:
      return dare(voice);
    case kYes:
      return {true, voice.beats.size()};
    default:
      return {false, voice.beats.size()};
  }
}

/// The thing is stuck, and a friend brings the tool that helps, or does not.
Ending stuck(Voice& voice) {
  enum { kHelps, kGivesUp };
  static const Beat help{"who comes to help with the {thing}, and with which tool",
                         {
                             {2, "{Friend} came from the {there} with a {tool}.", kHelps},
                             {2, "\"Try my {tool},\" said {friend}, who came from the {there}.", kHelps},
                             {1, "{Friend} {move} home to the {there} and back with a {tool}.", kHelps},
                             {2, "\"I lost my {tool} {there.at},\" said {friend}.", kGivesUp},
                             {2, "{Friend} came from the {there}, but without a {tool}.", kGivesUp},
                             {1, "{Friend} {move} home to the {there} for a {tool} and forgot it.", kGivesUp},
                         },
                         {{kFriend,
                           "{found} is not the one who helps: a child helps an animal here, an animal a "
                           "child, each from where it lives"},
                          {kThere, "the one who helps does not live {found.at}"}}};
  static const Beat success{"how the {tool} helps, and {hero} gets the {thing}",
                            {
                                {2, "With the {tool} they got the {thing} away from {spot.the}."},
                                {2, "{Friend} used the {tool}, and soon {hero} had the {thing}."},
                                {1, "A {tool} was just right for {spot.the}, and {hero} got the {thing}."},
                            },
                            {{kFriend, "{found} uses the {tool} that {friend} holds"},
                             {kHero, "{found} gets the {thing} that {hero} wants"}}};
  static const Beat failure{"how nothing helps without the {tool}",
                            {
                                {2, "Without the {tool} the {thing} stayed there."},
                                {2, "They pulled and pulled, but the {thing} stayed there."},
                                {1, "\"It needs a {tool},\" said {hero}, and left the {thing} there."},
                            }};
  const bool helps = voice.tell(help) == kHelps;
  const Ending end{helps, voice.beats.size()};
  voice.tell(helps ? success : failure);
  return end;
}

/// The thing is lost. A friend has seen it, and the hero looks there or elsewhere.
Ending lost(Voice& voice) {
  enum { kAsTold, kElsewhere };
  static const Beat hint{"where somebody has seen the {thing}",
                         {
                             {3, "\"I saw it {there.at},\" said {friend}."},
                             {2, "{Friend} had seen it {there.at}."},
                             {2, "\"Look {there.at},\" said {friend}."},
                             {1, "\"Is it {there.at}?\" asked {friend}."},
                         },
                         {{kFriend, "{found} is not the one who lives {there.at} and helps a {hero.kind}"},
                          {kThere, "if the {thing} were {found.at}, {hero} would have it already"}}};
  static const Beat search{
      "where {hero} goes to look for the {thing}",
      {
          {2, "So {hero} {move} to the {there}.", kAsTold},
          {2, "So {hero.he} looked {there.at}.", kAsTold},
          {1, "{Hero} {move} away to look {there.at}.", kAsTold},
          {2, "{Hero} did not listen and looked {goal.at}.", kElsewhere},
          {2, "But {hero.he} looked {goal.at}.", kElsewhere},
          {1, "But {hero} only {move} about {goal.at}.", kElsewhere},
      },
      {{kHero, "{hero} wants the {thing}, but here it is {found} who goes to look for it"},
       {kThere, "{friend} said {there.at}, so {hero} has no reason to look {found.at}"},
       {kGoal, "{friend} said {there.at}; who does not listen stays at home, and does not look {found.at}"}}};
  static const Beat found{"how {hero} finds the {thing} {there.at}",
                          {
                              {2, "There was the {thing}, next to a {junk}."},
                              {2, "{Friend} was right: there was the {thing}."},
                              {1, "Under a {junk} {hero.he} found the {thing}."},
                          },
                          {{kFriend, "it was {friend} who had seen the {thing}, not {found}"}}};
  static const Beat not_found{"how there is no {thing}, since {friend} said {there.at}",
                              {
                                  {2, "{Friend} had said the {there}."},
                                  {2, "There was only a {junk}, as {friend} had said the {there}."},
                                  {1, "The {thing} was still {there.at}."},
                              },
                              {{kFriend, "it was {friend} who had seen the {thing}, not {found}"},
                               {kThere, "{friend} had said the {there}, not the {found}"}}};
  voice.tell(hint);
  const bool as_told = voice.tell(search) == kAsTold;
  const Ending end{as_told, voice.beats.size()};
  voice.tell(as_told ? found : not_found);
  return end;
}

}  // namespace

Ending tell_story(Voice& voice) {
  opening(voice);
  wish(voice);
  enum { kFriendHasIt, kStuck, kLost };
  static const Beat trouble{"what is in the way",
                            {
                                {3, "But {friend} had the {thing} {there.at}.", kFriendHasIt},
                                {2, "But the {thing} was with {friend} {there.at}.", kFriendHasIt},
                                {1, "But it belonged to {friend}, who was {there.at}.", kFriendHasIt},
                                {2, "But the {thing} was stuck {spot}.", kStuck},
                                {1, "But somebody had left it {spot}.", kStuck},
                                {1, "But the {thing} was lost.", kLost},
                                {1, "But nobody knew where the {thing} was.", kLost},
                                {1, "But the wind had taken the {thing} away.", kLost},
                            }};
  Ending end;
  switch (voice.tell(trouble)) {
    case kFriendHasIt:
      end = with_a_friend(voice);
      break;
    case kStuck:
      end = stuck(voice);
      break;
    default:
      end = lost(voice);
      break;
  }
  ending(voice, end.happy);
  return end;
}

}  // namespace llm
